"""Invites to a project: made, listed with who came, revoked."""

from typing import Any

from flask import Response, flash, render_template, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse
from wtforms import BooleanField, IntegerField, SelectField
from wtforms.validators import NumberRange

from bus import limits
from bus.tenancy import invites, participant_queries
from webapp.auth import current_owner
from webapp.blueprints import NavItem, ProjectBlueprint, current_project, render_page, see_other
from webapp.context import connection, redirect_on_refusal, show_refusal_on_form, transaction
from webapp.forms import (
    ADMIN_DESCRIPTION,
    ID_CONVERTER,
    current_url,
    kind_field,
    optional_text_field,
    query_int,
    select_choices,
    split_page,
    store_credentials,
)

blueprint = ProjectBlueprint("invites", tab=NavItem("Invites", 60))

# Each that is open carries the form that revokes it.
_PAGE_SIZE = 25
_TTL_CHOICES = select_choices(("1", "1 hour"), ("24", "1 day"), ("72", "3 days"), ("168", "7 days"))


class InviteForm(FlaskForm):  # type: ignore[misc]
    """Whom an invite is for, and what it gives."""

    participant_name = optional_text_field(
        "Name",
        limits.MAX_LABEL_LENGTH,
        description="Locks the invite to this name. Leave it out and the invited choose.",
    )
    participant_id = SelectField(
        "Or for a participant that you have",
        description="It gets one more token here, and is let in where it is not.",
        validate_choice=False,
    )
    email = optional_text_field(
        "Only for", 254, description="An e-mail address. It is then accepted signed in, and never by the code alone."
    )
    kind = kind_field()
    lane = optional_text_field("Lane", limits.MAX_LABEL_LENGTH)
    is_admin = BooleanField("Project-admin", description=ADMIN_DESCRIPTION)
    uses = IntegerField(
        "Uses", default=1, validators=[NumberRange(1, limits.MAX_INVITE_USES, f"1 to {limits.MAX_INVITE_USES}.")]
    )
    ttl_hours = SelectField("Good for", choices=_TTL_CHOICES, default="24")


@blueprint.get("/")
def index() -> str | Response:
    """Invites, newest first, with who came by them."""
    project, before = current_project(), query_int("before")
    with connection() as conn:
        rows, more = split_page(invites.list_invites(conn, project.id, before=before, limit=_PAGE_SIZE + 1), _PAGE_SIZE)
    return render_page(
        "invites/index.html",
        part="invites/_list.html",
        project=project,
        invites=rows,
        current_url=current_url(),
        older=current_url(before=str(rows[-1].id)) if more else None,
        newest=current_url(before=None) if before else None,
    )


@blueprint.get("/new")
def new() -> str:
    """The form for an invite."""
    return _render_new(InviteForm())


@blueprint.post("/new")
def create() -> BaseResponse | tuple[str, int]:
    """Make an invite and show its code, this once."""
    form, project = InviteForm(), current_project()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            made = invites.create_for_owner(
                conn,
                project.id,
                participant_name=form.participant_name.data,
                participant_id=_parse_participant_id(form.participant_id.data),
                email=form.email.data,
                kind=form.kind.data,
                lane=form.lane.data,
                is_admin=form.is_admin.data,
                uses=form.uses.data,
                ttl_hours=int(form.ttl_hours.data),
                actor=current_owner().handle,
            )
            key = store_credentials(conn, "invite", **_credentials_content(made, form.email.data, project.id))
    if form.errors:
        return _render_new(form), 400
    return see_other("credentials.show", key=key)


@blueprint.post(f"/<{ID_CONVERTER}:invite_id>/revoke")
def revoke(invite_id: int) -> BaseResponse:
    """Let nobody in by it any more."""
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        invites.revoke(conn, current_project().id, invite_id, actor=current_owner().handle)
    flash("The invite lets nobody in any more.", "success")
    return see_other(".index")


def _render_new(form: InviteForm) -> str:
    project = current_project()
    with connection() as conn:
        found = participant_queries.list_participant_summaries(conn, project.owner_id, limit=200)
    living = sorted((one.label, one.id) for one in found if one.label and one.removed_at is None)
    form.participant_id.choices = select_choices(
        ("", "nobody in particular"), *((str(number), label) for label, number in living)
    )
    return render_template("invites/new.html", project=project, form=form)


def _credentials_content(invite: invites.CreatedInvite, email: str | None, project_id: int) -> dict[str, Any]:
    return {
        "code": invite.code,
        "project": invite.project,
        "project_id": project_id,
        "participant_name": invite.participant_name,
        "email": email,
    }


def _parse_participant_id(value: str | None) -> int | None:
    """The id of a chosen participant; something that is no id is nobody's."""
    if not value or value == "None":
        return None
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 17 else 0
