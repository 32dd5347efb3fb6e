"""Owners: their usage, and the actions of an operator on their accounts."""

import secrets
from typing import Any

from flask import flash, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Response
from wtforms import BooleanField, HiddenField, IntegerField, SelectField
from wtforms.validators import NumberRange, Regexp, ValidationError

from bus import limits
from bus.auth import identities, sessions
from bus.billing import credits
from bus.billing.tables import CREDIT_PLANS
from bus.db.pagination import paginate
from bus.operations import console_queries
from bus.rules.text_format import pluralize
from bus.tenancy import owners, participant_queries
from webapp import auth, reauth
from webapp.auth import current_owner
from webapp.blueprints import ID_CONVERTER, NavItem, OperatorBlueprint, see_other
from webapp.context import connection, options, redirect_on_refusal, show_refusal_on_form, transaction
from webapp.forms import optional_text_field, required_text_field, select_choices
from webapp.pagination import current_url, fetch_page, query_int

blueprint = OperatorBlueprint("operator_owners", path="owners", tab=NavItem("Owners", 20))

_ROWS_PER_LIST = 10
_PLAN_LABELS = {
    "free": "free: prepaid, suspended when credits run out",
    "team": "team: prepaid, suspended when credits run out",
    "comped": "comped: metered, never suspended",
}


class SearchForm(FlaskForm):  # type: ignore[misc]
    """Filters of the list."""

    class Meta:
        """Filters are sent with GET and need no CSRF token."""

        csrf = False

    search = optional_text_field("Handle or email", 254, description="Partial matches work.")
    suspended = BooleanField("Only suspended")


class GrantForm(FlaskForm):  # type: ignore[misc]
    """Credits to grant; the reference makes a repeated submission one grant."""

    amount = IntegerField("Credits", validators=[NumberRange(1, credits.MAX_CREDITS, "1 to 10^12.")])
    grant_reason = required_text_field("Reason", limits.MAX_REASON_LENGTH, description="Shown to the owner.")
    reference = HiddenField(validators=[Regexp(r"[0-9a-f]{16}\Z")])


class PlanForm(FlaskForm):  # type: ignore[misc]
    """The plan of an owner."""

    plan = SelectField("Plan", choices=select_choices(*((plan, _PLAN_LABELS[plan]) for plan in CREDIT_PLANS)))


class SuspendForm(FlaskForm):  # type: ignore[misc]
    """The reason of a suspension."""

    suspend_reason = required_text_field(
        "Reason", limits.MAX_REASON_LENGTH, description="Recorded in the owner's audit log."
    )

    def validate_suspend_reason(self, field: Any) -> None:
        """Reject the reason that the engine uses for exhausted credits."""
        if field.data == owners.CREDITS_EXHAUSTED:
            raise ValidationError("This reason is reserved for exhausted credits; use another wording.")


class LiftSuspensionForm(FlaskForm):  # type: ignore[misc]
    """The reason of lifting a suspension."""

    lift_reason = required_text_field(
        "Reason", limits.MAX_REASON_LENGTH, description="Recorded in the owner's audit log."
    )


@blueprint.get("/")
def index() -> str:
    """List owners, newest first; search by handle or email address."""
    form = SearchForm(request.args)
    page = fetch_page(
        lambda conn, before, limit: console_queries.list_owners(
            conn, form.search.data, suspended_only=form.suspended.data, before=before, limit=limit
        )
    )
    return render_template(
        "operator/owners.html",
        form=form,
        filter_error=page.filter_error,
        owners=page.rows,
        has_filters=bool(form.search.data),
        chips=[
            ("All", current_url(suspended=None, before=None), not form.suspended.data),
            ("Suspended", current_url(suspended="y", before=None), bool(form.suspended.data)),
        ],
        older=page.older,
        newest=page.newest,
    )


@blueprint.get(f"/<{ID_CONVERTER}:owner_id>")
def show(owner_id: int) -> str:
    """Show an owner with the available actions."""
    return _render_owner(owner_id)


@blueprint.action(f"/<{ID_CONVERTER}:owner_id>/grant", return_view="show")
def grant(owner_id: int) -> Response | tuple[str, int]:
    """Grant credits; this also lifts a suspension for exhausted credits."""
    form, owner = GrantForm(), _get_owner(owner_id)
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            entry = credits.add_credits(
                conn,
                owner_id,
                form.amount.data,
                reference=f"operator:{form.reference.data}",
                kind="grant",
                reason=form.grant_reason.data,
                actor=current_owner().handle,
            )
    elif "reference" in form.errors:
        raise BadRequest
    if form.errors:
        return _render_owner(owner_id, grant=form), 400
    flash(f"{pluralize(entry.amount, 'credit')} granted to {owner.handle}.", "success")
    return see_other(".show", owner_id=owner_id, _anchor="credits")


@blueprint.action(f"/<{ID_CONVERTER}:owner_id>/plan", return_view="show")
def plan(owner_id: int) -> Response | tuple[str, int]:
    """Change the plan."""
    form, owner = PlanForm(), _get_owner(owner_id)
    if not form.validate():
        return _render_owner(owner_id, plan=form), 400
    with redirect_on_refusal(url_for(".show", owner_id=owner_id)), transaction() as conn:
        account = credits.set_plan(conn, owner_id, form.plan.data, actor=current_owner().handle)
    flash(f"Plan of {owner.handle} changed to {account.plan}.", "success")
    return see_other(".show", owner_id=owner_id)


@blueprint.action(f"/<{ID_CONVERTER}:owner_id>/suspend", return_view="show")
def suspend(owner_id: int) -> Response | tuple[str, int]:
    """Suspend an owner: calls of their agents are refused."""
    form, owner = SuspendForm(), _get_owner(owner_id)
    if not form.validate():
        return _render_owner(owner_id, suspend=form), 400
    with redirect_on_refusal(url_for(".show", owner_id=owner_id)), transaction() as conn:
        is_changed = owners.suspend(conn, owner_id, reason=form.suspend_reason.data, actor=current_owner().handle)
    if is_changed:
        flash(f"{owner.handle} suspended: the next call of each agent is refused.", "success")
    else:
        flash(f"{owner.handle} was already suspended; the first reason is kept.", "warning")
    return see_other(".show", owner_id=owner_id)


@blueprint.action(f"/<{ID_CONVERTER}:owner_id>/lift", return_view="show")
def lift(owner_id: int) -> Response | tuple[str, int]:
    """Lift the suspension of an owner."""
    form, owner = LiftSuspensionForm(), _get_owner(owner_id)
    if not form.validate():
        return _render_owner(owner_id, lift=form), 400
    with redirect_on_refusal(url_for(".show", owner_id=owner_id)), transaction() as conn:
        is_changed = owners.lift_suspension(conn, owner_id, actor=current_owner().handle, note=form.lift_reason.data)
    if is_changed:
        flash(f"Suspension of {owner.handle} lifted.", "success")
    else:
        flash(f"{owner.handle} was not suspended.", "warning")
    return see_other(".show", owner_id=owner_id)


@blueprint.action(f"/<{ID_CONVERTER}:owner_id>/sign-out", return_view="show")
def sign_out(owner_id: int) -> Response:
    """End all sessions of an owner."""
    owner = _get_owner(owner_id)
    with transaction() as conn:
        ended_count = sessions.end_all_sessions(conn, owner_id, actor=current_owner().handle)
    if owner_id == current_owner().id:
        auth.sign_out()
        return see_other("sign_in.index")
    flash(f"{owner.handle} signed out: {pluralize(ended_count, 'session')} ended.", "success")
    return see_other(".show", owner_id=owner_id, _anchor="sessions")


def _get_owner(owner_id: int) -> console_queries.OwnerSummary:
    with connection() as conn:
        return console_queries.get_owner(conn, owner_id)


def _render_owner(owner_id: int, **rejected_forms: FlaskForm) -> str:
    """Render the page of an owner.

    Args:
        owner_id: the owner.
        **rejected_forms: forms with errors to show, by the name of their view.
    """
    cursors = {name: query_int(name) for name in ("projects", "participants", "entries")}
    limit = _ROWS_PER_LIST + 1
    with connection() as conn:
        owner = console_queries.get_owner(conn, owner_id)
        rows: dict[str, Any] = {
            "projects": console_queries.list_projects(conn, owner_id=owner_id, before=cursors["projects"], limit=limit),
            "participants": participant_queries.list_participant_summaries(
                conn, owner_id, before=cursors["participants"], limit=limit
            ),
            "entries": credits.list_entries(conn, owner_id, before=cursors["entries"], limit=limit),
        }
        linked_identities = identities.list_identities(conn, owner_id)
        open_sessions = sessions.list_sessions(conn, owner_id, idle_timeout=options().session_idle_timeout)
    pages = {name: paginate(list_rows, _ROWS_PER_LIST) for name, list_rows in rows.items()}
    forms: tuple[tuple[str, type[FlaskForm], dict[str, Any]], ...] = (
        ("grant", GrantForm, {"reference": secrets.token_hex(8)}),
        ("plan", PlanForm, {"plan": owner.plan or "free"}),
        ("suspend", SuspendForm, {}),
        ("lift", LiftSuspensionForm, {}),
    )
    return render_template(
        "operator/owner.html",
        owner_summary=owner,
        **{name: page for name, (page, _) in pages.items()},
        older={
            name: current_url(**{name: str(page[-1].id)}) + f"#{name}" if has_more else None
            for name, (page, has_more) in pages.items()
        },
        newest={name: current_url(**{name: None}) + f"#{name}" if cursor else None for name, cursor in cursors.items()},
        identities=linked_identities,
        sessions=open_sessions,
        action_forms={
            name: rejected_forms.get(name)
            or _create_form(form_class, url_for(f".{name}", owner_id=owner_id), **defaults)
            for name, form_class, defaults in forms
        },
    )


def _create_form(form_class: type[FlaskForm], action: str, **defaults: Any) -> FlaskForm:
    """A form with the fields submitted before a reauthentication, or with these defaults."""
    saved_fields: MultiDict[str, str] | None = reauth.find_saved_form(action)
    return form_class(formdata=saved_fields, **defaults)
