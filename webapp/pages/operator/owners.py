"""Everybody who has an account: how much they use, and what an operator does in their affairs."""

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
from bus.errors import BusError
from bus.operations import queries
from bus.tenancy import owners, participant_queries
from webapp import auth, reauth
from webapp.auth import current_owner
from webapp.blueprints import NavItem, OperatorBlueprint, see_other
from webapp.context import connection, options, redirect_on_refusal, show_refusal_on_form, transaction
from webapp.forms import (
    ID_CONVERTER,
    PAGE_SIZE,
    current_url,
    optional_text_field,
    query_int,
    required_text_field,
    select_choices,
    split_page,
)

blueprint = OperatorBlueprint("operator_owners", path="owners", tab=NavItem("Owners", 20))

_ROWS_PER_LIST = 10
_PLAN_LABELS = {
    "free": "free: prepaid, suspended when used up",
    "team": "team: prepaid, suspended when used up",
    "comped": "comped: metered, never suspended",
}


class SearchForm(FlaskForm):  # type: ignore[misc]
    """Whom to show."""

    class Meta:
        csrf = False

    search = optional_text_field("Handle or e-mail", 254, description="Any part of it.")
    suspended = BooleanField("Only suspended")


class GrantForm(FlaskForm):  # type: ignore[misc]
    """Credits, and the reference that makes a button that is pressed twice one grant."""

    amount = IntegerField("Credits", validators=[NumberRange(1, credits.MAX_CREDITS, "1 to 10^12.")])
    grant_reason = required_text_field("Reason", limits.MAX_REASON_LENGTH, description="The owner reads it.")
    reference = HiddenField(validators=[Regexp(r"[0-9a-f]{16}\Z")])


class PlanForm(FlaskForm):  # type: ignore[misc]
    """What an owner pays."""

    plan = SelectField("Plan", choices=select_choices(*((plan, _PLAN_LABELS[plan]) for plan in CREDIT_PLANS)))


class SuspendForm(FlaskForm):  # type: ignore[misc]
    """Why an owner's agents are refused."""

    suspend_reason = required_text_field(
        "Reason", limits.MAX_REASON_LENGTH, description="It is written to the owner's audit log."
    )

    def validate_suspend_reason(self, field: Any) -> None:
        if field.data == owners.CREDITS_EXHAUSTED:
            raise ValidationError("Say it in other words: this one stands for credits that are used up.")


class LiftSuspensionForm(FlaskForm):  # type: ignore[misc]
    """Why they are not refused any more."""

    lift_reason = required_text_field(
        "Reason", limits.MAX_REASON_LENGTH, description="It is written to the owner's audit log."
    )


@blueprint.get("/")
def index() -> str:
    """Owners, the newest first; found by handle or e-mail."""
    form, before, problem = SearchForm(request.args), query_int("before"), None
    rows: Any = ()
    more = False
    try:
        with connection() as conn:
            found = queries.list_owners(
                conn, form.search.data, suspended_only=form.suspended.data, before=before, limit=PAGE_SIZE + 1
            )
            rows, more = split_page(found)
    except BusError as error:
        problem = error.message
    return render_template(
        "operator/owners.html",
        form=form,
        filter_error=problem,
        owners=rows,
        has_filters=bool(form.search.data or form.suspended.data),
        older=current_url(before=str(rows[-1].id)) if more else None,
        newest=current_url(before=None) if before else None,
    )


@blueprint.get(f"/<{ID_CONVERTER}:owner_id>")
def show(owner_id: int) -> str:
    """One owner, with what can be done."""
    return _render_owner(owner_id)


@blueprint.action(f"/<{ID_CONVERTER}:owner_id>/grant", return_view="show")
def grant(owner_id: int) -> Response | tuple[str, int]:
    """Grant credits; what they are used up for is lifted with it."""
    form, found = GrantForm(), _get_owner(owner_id)
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
    flash(f"{found.handle} was granted {entry.amount:,} credits.", "success")
    return see_other(".show", owner_id=owner_id, _anchor="credits")


@blueprint.action(f"/<{ID_CONVERTER}:owner_id>/plan", return_view="show")
def plan(owner_id: int) -> Response | tuple[str, int]:
    """Put an owner on a plan."""
    form, found = PlanForm(), _get_owner(owner_id)
    if not form.validate():
        return _render_owner(owner_id, plan=form), 400
    with redirect_on_refusal(url_for(".show", owner_id=owner_id)), transaction() as conn:
        account = credits.set_plan(conn, owner_id, form.plan.data, actor=current_owner().handle)
    flash(f"{found.handle} is on plan {account.plan}.", "success")
    return see_other(".show", owner_id=owner_id)


@blueprint.action(f"/<{ID_CONVERTER}:owner_id>/suspend", return_view="show")
def suspend(owner_id: int) -> Response | tuple[str, int]:
    """Refuse every call of an owner's agents from now on."""
    form, found = SuspendForm(), _get_owner(owner_id)
    if not form.validate():
        return _render_owner(owner_id, suspend=form), 400
    with redirect_on_refusal(url_for(".show", owner_id=owner_id)), transaction() as conn:
        changed = owners.suspend(conn, owner_id, reason=form.suspend_reason.data, actor=current_owner().handle)
    if changed:
        flash(f"{found.handle} is suspended: the next call of each agent is refused.", "success")
    else:
        flash(f"{found.handle} was suspended already; the first reason stands.", "warning")
    return see_other(".show", owner_id=owner_id)


@blueprint.action(f"/<{ID_CONVERTER}:owner_id>/lift", return_view="show")
def lift(owner_id: int) -> Response | tuple[str, int]:
    """Let an owner's agents work again."""
    form, found = LiftSuspensionForm(), _get_owner(owner_id)
    if not form.validate():
        return _render_owner(owner_id, lift=form), 400
    with redirect_on_refusal(url_for(".show", owner_id=owner_id)), transaction() as conn:
        changed = owners.lift_suspension(conn, owner_id, actor=current_owner().handle, note=form.lift_reason.data)
    if changed:
        flash(f"{found.handle} is not suspended any more.", "success")
    else:
        flash(f"{found.handle} was not suspended.", "warning")
    return see_other(".show", owner_id=owner_id)


@blueprint.action(f"/<{ID_CONVERTER}:owner_id>/sign-out", return_view="show")
def sign_out(owner_id: int) -> Response:
    """Sign an owner out in every browser."""
    found = _get_owner(owner_id)
    with transaction() as conn:
        ended = sessions.end_all_sessions(conn, owner_id, actor=current_owner().handle)
    if owner_id == current_owner().id:
        auth.sign_out()
        return see_other("sign_in.index")
    flash(f"{found.handle} is signed out: {ended} session{'' if ended == 1 else 's'} ended.", "success")
    return see_other(".show", owner_id=owner_id, _anchor="sessions")


def _get_owner(owner_id: int) -> queries.OwnerSummary:
    with connection() as conn:
        return queries.get_owner(conn, owner_id)


def _render_owner(owner_id: int, **rejected_forms: FlaskForm) -> str:
    """The page of an owner.

    Args:
        sent: forms that were refused, by the name of their act.
    """
    lists = {name: query_int(name) for name in ("projects", "participants", "entries")}
    with connection() as conn:
        found = queries.get_owner(conn, owner_id)
        spaces = split_page(
            queries.list_projects(conn, owner_id=owner_id, before=lists["projects"], limit=_ROWS_PER_LIST + 1),
            _ROWS_PER_LIST,
        )
        persons = split_page(
            participant_queries.list_participant_summaries(conn, owner_id, before=lists["participants"], limit=_ROWS_PER_LIST + 1),
            _ROWS_PER_LIST,
        )
        entries = split_page(
            credits.list_entries(conn, owner_id, before=lists["entries"], limit=_ROWS_PER_LIST + 1), _ROWS_PER_LIST
        )
        ways = identities.list_identities(conn, owner_id)
        open_sessions = sessions.list_sessions(conn, owner_id, idle_timeout=options().session_idle_timeout)
    return render_template(
        "operator/owner.html",
        owner_summary=found,
        projects=spaces[0],
        participants=persons[0],
        entries=entries[0],
        older={
            name: current_url(**{name: str(rows[-1].id)}) + f"#{name}" if more else None
            for name, (rows, more) in (("projects", spaces), ("participants", persons), ("entries", entries))
        },
        newest={name: current_url(**{name: None}) + f"#{name}" if at else None for name, at in lists.items()},
        identities=ways,
        sessions=open_sessions,
        action_forms={
            name: rejected_forms.get(name) or _create_form(made, url_for(f".{name}", owner_id=owner_id), **facts)
            for name, made, facts in (
                ("grant", GrantForm, {"reference": secrets.token_hex(8)}),
                ("plan", PlanForm, {"plan": found.plan or "free"}),
                ("suspend", SuspendForm, {}),
                ("lift", LiftSuspensionForm, {}),
            )
        },
    )


def _create_form(form_class: type[FlaskForm], action: str, **defaults: Any) -> FlaskForm:
    """A form as it was typed before its sender signed in again, or a fresh one with these facts."""
    typed: MultiDict[str, str] | None = reauth.find_saved_form(action)
    return form_class(formdata=typed, **defaults)
