"""Invites to a project: creation, list, revocation."""

from typing import Any

from flask import Response, flash, render_template, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse
from wtforms import BooleanField, IntegerField, SelectField
from wtforms.validators import NumberRange

from bus import limits
from bus.db.pagination import paginate
from bus.tenancy import invite_queries, invites, participant_queries
from webapp.auth import current_owner
from webapp.blueprints import ID_CONVERTER, NavItem, ProjectBlueprint, current_project, render_page, see_other
from webapp.context import connection, redirect_on_refusal, show_refusal_on_form, transaction
from webapp.forms import ADMIN_DESCRIPTION, kind_field, optional_text_field, select_choices
from webapp.one_time_credentials import store_credentials
from webapp.pagination import current_url, query_int
from webapp.suspension import allowed_while_suspended

blueprint = ProjectBlueprint(
    "invites",
    tab=NavItem("Invites", 64, "ticket", is_secondary=True),
    reads="manage_project",
    writes="manage_project",
)

# Smaller than other pages: each open invite contains a form that revokes it.
_PAGE_SIZE = 25
_MAX_LISTED_PARTICIPANTS = 200
_TTL_CHOICES = select_choices(("1", "1 hour"), ("24", "1 day"), ("72", "3 days"), ("168", "7 days"), ("720", "30 days"))


class InviteForm(FlaskForm):  # type: ignore[misc]
    """A new invite."""

    participant_name = optional_text_field(
        "Name", limits.MAX_LABEL_LENGTH, description="Leave empty to let them choose."
    )
    participant_id = SelectField(
        "Existing participant",
        description="It gets one more token, and joins the project if it is not in it.",
        validate_choice=False,
    )
    email = optional_text_field(
        "Restrict to email",
        254,
        description="They must sign in with this address; the code alone won't work.",
    )
    kind = kind_field()
    lane = optional_text_field("Lane", limits.MAX_LABEL_LENGTH)
    is_admin = BooleanField("Project-admin", description=ADMIN_DESCRIPTION)
    uses = IntegerField(
        "Max uses", default=1, validators=[NumberRange(1, limits.MAX_INVITE_USES, f"1 to {limits.MAX_INVITE_USES}.")]
    )
    ttl_hours = SelectField("Expires in", choices=_TTL_CHOICES, default="24")


@blueprint.get("/")
def index() -> str | Response:
    """List invites with the participants who joined by them, newest first."""
    project, before = current_project(), query_int("before")
    with connection() as conn:
        rows = invite_queries.list_invites(conn, project.id, before=before, limit=_PAGE_SIZE + 1)
    page, has_more = paginate(rows, _PAGE_SIZE)
    return render_page(
        "invites/index.html",
        part="invites/_list.html",
        project=project,
        invites=page,
        current_url=current_url(),
        older=current_url(before=str(page[-1].id)) if has_more else None,
        newest=current_url(before=None) if before else None,
    )


@blueprint.get("/new")
def new() -> str:
    """Show the form for an invite."""
    return _render_new(InviteForm())


@blueprint.post("/new")
def create() -> BaseResponse | tuple[str, int]:
    """Create an invite and show its code once."""
    form, project = InviteForm(), current_project()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            invite = invites.create_for_owner(
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
            key = store_credentials(conn, "invite", **_credentials_content(invite, form.email.data, project.id))
    if form.errors:
        return _render_new(form), 400
    return see_other("credentials.show", key=key)


@blueprint.post(f"/<{ID_CONVERTER}:invite_id>/revoke")
@allowed_while_suspended
def revoke(invite_id: int) -> BaseResponse:
    """Revoke an invite."""
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        invites.revoke(conn, current_project().id, invite_id, actor=current_owner().handle)
    flash("Invite revoked.", "success")
    return see_other(".index")


def _render_new(form: InviteForm) -> str:
    project = current_project()
    with connection() as conn:
        rows = participant_queries.list_participant_summaries(conn, project.owner_id, limit=_MAX_LISTED_PARTICIPANTS)
    participants = sorted((row.label, row.id) for row in rows if row.label and row.removed_at is None)
    form.participant_id.choices = select_choices(
        ("", "none"), *((str(participant_id), label) for label, participant_id in participants)
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
    """The selected participant's id; None if none is selected, 0 (which matches no participant) if malformed."""
    if not value or value == "None":
        return None
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 17 else 0
