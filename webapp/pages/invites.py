"""Invites to a project: made, listed with who came, revoked."""

from typing import Any

from flask import Response, flash, render_template, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse
from wtforms import BooleanField, IntegerField, SelectField
from wtforms.validators import NumberRange

from bus import limits
from bus.tenancy import invites, people
from webapp.auth import current_owner
from webapp.blueprints import Entry, ProjectPages, current_project, render, see_other
from webapp.context import reading, refused_on, refused_to, writing
from webapp.forms import ADMIN_MAY, ID, asked_number, choices, keep_card, kind_field, split, this_page, words

pages = ProjectPages("invites", tab=Entry("Invites", 60))

# Each that is open carries the form that revokes it.
_PER_PAGE = 25
_HOURS = choices(("1", "1 hour"), ("24", "1 day"), ("72", "3 days"), ("168", "7 days"))


class InviteForm(FlaskForm):  # type: ignore[misc]
    """Whom an invite is for, and what it gives."""

    participant_name = words(
        "Name", limits.LABEL, description="Locks the invite to this name. Leave it out and the invited choose."
    )
    participant_id = SelectField(
        "Or for a participant that you have",
        description="It gets one more token here, and is let in where it is not.",
        validate_choice=False,
    )
    email = words(
        "Only for", 254, description="An e-mail address. It is then accepted signed in, and never by the code alone."
    )
    kind = kind_field()
    lane = words("Lane", limits.LABEL)
    is_admin = BooleanField("Project-admin", description=ADMIN_MAY)
    uses = IntegerField(
        "Uses", default=1, validators=[NumberRange(1, limits.INVITE_USES, f"1 to {limits.INVITE_USES}.")]
    )
    ttl_hours = SelectField("Good for", choices=_HOURS, default="24")


@pages.get("/")
def index() -> str | Response:
    """Invites, newest first, with who came by them."""
    project, before = current_project(), asked_number("before")
    with reading() as conn:
        rows, more = split(invites.list_(conn, project.id, before=before, limit=_PER_PAGE + 1), _PER_PAGE)
    return render(
        "invites/index.html",
        part="invites/_list.html",
        project=project,
        invites=rows,
        here=this_page(),
        older=this_page(before=str(rows[-1].id)) if more else None,
        newest=this_page(before=None) if before else None,
    )


@pages.get("/new")
def new() -> str:
    """The form for an invite."""
    return _new(InviteForm())


@pages.post("/new")
def create() -> BaseResponse | tuple[str, int]:
    """Make an invite and show its code, this once."""
    form, project = InviteForm(), current_project()
    if form.validate():
        with refused_on(form), writing() as conn:
            made = invites.create_for(
                conn,
                project.id,
                participant_name=form.participant_name.data,
                participant_id=_number(form.participant_id.data),
                email=form.email.data,
                kind=form.kind.data,
                lane=form.lane.data,
                is_admin=form.is_admin.data,
                uses=form.uses.data,
                ttl_hours=int(form.ttl_hours.data),
                actor=current_owner().handle,
            )
            key = keep_card(conn, "invite", **_card(made, form.email.data, project.id))
    if form.errors:
        return _new(form), 400
    return see_other("cards.show", key=key)


@pages.post(f"/<{ID}:invite_id>/revoke")
def revoke(invite_id: int) -> BaseResponse:
    """Let nobody in by it any more."""
    with refused_to(url_for(".index")), writing() as conn:
        invites.revoke(conn, current_project().id, invite_id, actor=current_owner().handle)
    flash("The invite lets nobody in any more.", "success")
    return see_other(".index")


def _new(form: InviteForm) -> str:
    project = current_project()
    with reading() as conn:
        found = people.list_(conn, project.owner_id, limit=200)
    living = sorted((one.label, one.id) for one in found if one.label and one.removed_at is None)
    form.participant_id.choices = choices(
        ("", "nobody in particular"), *((str(number), label) for label, number in living)
    )
    return render_template("invites/new.html", project=project, form=form)


def _card(made: invites.Created, email: str | None, project_id: int) -> dict[str, Any]:
    return {
        "code": made.code,
        "project": made.project,
        "project_id": project_id,
        "participant_name": made.participant_name,
        "email": email,
    }


def _number(said: str | None) -> int | None:
    """The id of a chosen participant; something that is no id is nobody's."""
    if not said or said == "None":
        return None
    return int(said) if said.isascii() and said.isdecimal() and len(said) < 17 else 0
