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
from bus.billing.tables import PLANS
from bus.errors import BusError
from bus.operations import queries
from bus.tenancy import owners, people
from webapp import auth, reauth
from webapp.auth import current_owner
from webapp.blueprints import Entry, OperatorPages, see_other
from webapp.context import options, reading, refused_on, refused_to, writing
from webapp.forms import ID, PER_PAGE, asked_number, choices, needed, split, this_page, words

pages = OperatorPages("operator_owners", path="owners", tab=Entry("Owners", 20))

_FEW = 10
_PLANS = {
    "free": "free: prepaid, suspended when used up",
    "team": "team: prepaid, suspended when used up",
    "comped": "comped: metered, never suspended",
}


class SearchForm(FlaskForm):  # type: ignore[misc]
    """Whom to show."""

    class Meta:
        csrf = False

    search = words("Handle or e-mail", 254, description="Any part of it.")
    suspended = BooleanField("Only suspended")


class GrantForm(FlaskForm):  # type: ignore[misc]
    """Credits, and the reference that makes a button that is pressed twice one grant."""

    amount = IntegerField("Credits", validators=[NumberRange(1, credits.MOST, "1 to 10^12.")])
    grant_reason = needed("Reason", limits.REASON, description="The owner reads it.")
    reference = HiddenField(validators=[Regexp(r"[0-9a-f]{16}\Z")])


class PlanForm(FlaskForm):  # type: ignore[misc]
    """What an owner pays."""

    plan = SelectField("Plan", choices=choices(*((plan, _PLANS[plan]) for plan in PLANS)))


class SuspendForm(FlaskForm):  # type: ignore[misc]
    """Why an owner's agents are refused."""

    suspend_reason = needed("Reason", limits.REASON, description="It is written to the owner's audit log.")

    def validate_suspend_reason(self, field: Any) -> None:
        if field.data == owners.CREDITS:
            raise ValidationError("Say it in other words: this one stands for credits that are used up.")


class LiftForm(FlaskForm):  # type: ignore[misc]
    """Why they are not refused any more."""

    lift_reason = needed("Reason", limits.REASON, description="It is written to the owner's audit log.")


@pages.get("/")
def index() -> str:
    """Owners, the newest first; found by handle or e-mail."""
    form, before, problem = SearchForm(request.args), asked_number("before"), None
    rows: Any = ()
    more = False
    try:
        with reading() as conn:
            found = queries.list_owners(
                conn, form.search.data, suspended=form.suspended.data, before=before, limit=PER_PAGE + 1
            )
            rows, more = split(found)
    except BusError as error:
        problem = error.message
    return render_template(
        "operator/owners.html",
        form=form,
        problem=problem,
        owners=rows,
        asked=bool(form.search.data or form.suspended.data),
        older=this_page(before=str(rows[-1].id)) if more else None,
        newest=this_page(before=None) if before else None,
    )


@pages.get(f"/<{ID}:owner_id>")
def show(owner_id: int) -> str:
    """One owner, with what can be done."""
    return _show(owner_id)


@pages.act(f"/<{ID}:owner_id>/grant", back="show")
def grant(owner_id: int) -> Response | tuple[str, int]:
    """Grant credits; what they are used up for is lifted with it."""
    form, found = GrantForm(), _find(owner_id)
    if form.validate():
        with refused_on(form), writing() as conn:
            entry = credits.add(
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
        return _show(owner_id, grant=form), 400
    flash(f"{found.handle} was granted {entry.amount:,} credits.", "success")
    return see_other(".show", owner_id=owner_id, _anchor="credits")


@pages.act(f"/<{ID}:owner_id>/plan", back="show")
def plan(owner_id: int) -> Response | tuple[str, int]:
    """Put an owner on a plan."""
    form, found = PlanForm(), _find(owner_id)
    if not form.validate():
        return _show(owner_id, plan=form), 400
    with refused_to(url_for(".show", owner_id=owner_id)), writing() as conn:
        account = credits.set_plan(conn, owner_id, form.plan.data, actor=current_owner().handle)
    flash(f"{found.handle} is on plan {account.plan}.", "success")
    return see_other(".show", owner_id=owner_id)


@pages.act(f"/<{ID}:owner_id>/suspend", back="show")
def suspend(owner_id: int) -> Response | tuple[str, int]:
    """Refuse every call of an owner's agents from now on."""
    form, found = SuspendForm(), _find(owner_id)
    if not form.validate():
        return _show(owner_id, suspend=form), 400
    with refused_to(url_for(".show", owner_id=owner_id)), writing() as conn:
        changed = owners.suspend(conn, owner_id, reason=form.suspend_reason.data, actor=current_owner().handle)
    if changed:
        flash(f"{found.handle} is suspended: the next call of each agent is refused.", "success")
    else:
        flash(f"{found.handle} was suspended already; the first reason stands.", "warning")
    return see_other(".show", owner_id=owner_id)


@pages.act(f"/<{ID}:owner_id>/lift", back="show")
def lift(owner_id: int) -> Response | tuple[str, int]:
    """Let an owner's agents work again."""
    form, found = LiftForm(), _find(owner_id)
    if not form.validate():
        return _show(owner_id, lift=form), 400
    with refused_to(url_for(".show", owner_id=owner_id)), writing() as conn:
        changed = owners.lift(conn, owner_id, actor=current_owner().handle, why=form.lift_reason.data)
    if changed:
        flash(f"{found.handle} is not suspended any more.", "success")
    else:
        flash(f"{found.handle} was not suspended.", "warning")
    return see_other(".show", owner_id=owner_id)


@pages.act(f"/<{ID}:owner_id>/sign-out", back="show")
def sign_out(owner_id: int) -> Response:
    """Sign an owner out in every browser."""
    found = _find(owner_id)
    with writing() as conn:
        ended = sessions.end_all(conn, owner_id, actor=current_owner().handle)
    if owner_id == current_owner().id:
        auth.sign_out()
        return see_other("sign_in.index")
    flash(f"{found.handle} is signed out: {ended} session{'' if ended == 1 else 's'} ended.", "success")
    return see_other(".show", owner_id=owner_id, _anchor="sessions")


def _find(owner_id: int) -> queries.Holder:
    with reading() as conn:
        return queries.get_owner(conn, owner_id)


def _show(owner_id: int, **sent: FlaskForm) -> str:
    """The page of an owner.

    Args:
        sent: forms that were refused, by the name of their act.
    """
    lists = {name: asked_number(name) for name in ("projects", "participants", "entries")}
    with reading() as conn:
        found = queries.get_owner(conn, owner_id)
        spaces = split(queries.list_projects(conn, owner_id=owner_id, before=lists["projects"], limit=_FEW + 1), _FEW)
        persons = split(people.list_(conn, owner_id, before=lists["participants"], limit=_FEW + 1), _FEW)
        entries = split(credits.list_entries(conn, owner_id, before=lists["entries"], limit=_FEW + 1), _FEW)
        ways = identities.list_(conn, owner_id)
        open_sessions = sessions.list_(conn, owner_id, idle=options().session_idle)
    return render_template(
        "operator/owner.html",
        holder=found,
        projects=spaces[0],
        participants=persons[0],
        entries=entries[0],
        older={
            name: this_page(**{name: str(rows[-1].id)}) + f"#{name}" if more else None
            for name, (rows, more) in (("projects", spaces), ("participants", persons), ("entries", entries))
        },
        newest={name: this_page(**{name: None}) + f"#{name}" if at else None for name, at in lists.items()},
        ways=ways,
        sessions=open_sessions,
        forms_={
            name: sent.get(name) or _form(made, url_for(f".{name}", owner_id=owner_id), **facts)
            for name, made, facts in (
                ("grant", GrantForm, {"reference": secrets.token_hex(8)}),
                ("plan", PlanForm, {"plan": found.plan or "free"}),
                ("suspend", SuspendForm, {}),
                ("lift", LiftForm, {}),
            )
        },
    )


def _form(made: type[FlaskForm], action: str, **facts: Any) -> FlaskForm:
    """A form as it was typed before its sender signed in again, or a fresh one with these facts."""
    typed: MultiDict[str, str] | None = reauth.typed(action)
    return made(formdata=typed, **facts)
