"""The people in a project: roles, invites for persons, leaving and removing."""

from flask import flash, render_template, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse
from wtforms import SelectField

from bus.notifications import invite_mails
from bus.operations import process_registry
from bus.rules.member_rights import has_right, managed_roles
from bus.tenancy import invite_queries, invites
from bus.tenancy import memberships as memberships_engine
from webapp.auth import current_owner
from webapp.blueprints import (
    ID_CONVERTER,
    NavItem,
    ProjectBlueprint,
    current_project,
    current_role,
    requires,
    see_other,
)
from webapp.context import connection, redirect_on_refusal, show_refusal_on_form, transaction
from webapp.forms import optional_text_field, select_choices
from webapp.one_time_credentials import store_credentials
from webapp.suspension import allowed_while_suspended

blueprint = ProjectBlueprint(
    "memberships",
    path="people",
    tab=NavItem("People", 58, "user-plus", is_secondary=True),
    writes="manage_participants",
)

_TTL_CHOICES = select_choices(("24", "1 day"), ("72", "3 days"), ("168", "7 days"), ("720", "30 days"))
_ROLE_LABELS = {
    "viewer": "viewer: sees everything",
    "member": "member: posts, tasks, own agents",
    "lead": "lead: also manages people",
}
_EMAIL_HINT = "They must sign in with this address; the link alone won't work."
_MAX_LISTED_INVITES = 25


class PersonInviteForm(FlaskForm):  # type: ignore[misc]
    """An invite for a person."""

    role = SelectField("Role", default="member")
    email = optional_text_field("Restrict to email", 254)
    ttl_hours = SelectField("Expires in", choices=_TTL_CHOICES, default="72")


class RoleForm(FlaskForm):  # type: ignore[misc]
    """Another role of a member."""

    role = SelectField("Role", validate_choice=False)


@blueprint.get("/")
def index() -> str:
    """List the people with their roles, and the open invites."""
    return _render_index(PersonInviteForm(formdata=None))


@blueprint.post("/invites")
def create_invite() -> BaseResponse | tuple[str, int]:
    """Create an invite for a person and show its link once."""
    form, project, owner = PersonInviteForm(), current_project(), current_owner()
    form.role.choices = _role_choices()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            invite = invites.create_for_person(
                conn,
                project.id,
                form.role.data,
                email=form.email.data,
                ttl_hours=int(form.ttl_hours.data),
                acting_owner_id=owner.id,
                actor=owner.handle,
            )
            mail = None
            if form.email.data:
                mail = (
                    invite_mails.queue(conn, project.id, invite.id, giver_id=owner.id)
                    if process_registry.has_mail_server(conn)
                    else "no_server"
                )
            key = store_credentials(
                conn,
                "invite",
                mail=mail,
                code=invite.code,
                project=invite.project,
                project_id=project.id,
                participant_name=None,
                email=form.email.data,
                role=invite.role,
            )
    if form.errors:
        return _render_index(form), 400
    return see_other("credentials.show", key=key)


@blueprint.post(f"/invites/<{ID_CONVERTER}:person_invite_id>/revoke")
@allowed_while_suspended
def revoke_invite(person_invite_id: int) -> BaseResponse:
    """Revoke an invite for a person."""
    owner = current_owner()
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        invites.revoke_for_person(
            conn, current_project().id, person_invite_id, acting_owner_id=owner.id, actor=owner.handle
        )
    flash("Invite revoked.", "success")
    return see_other(".index")


@blueprint.post(f"/<{ID_CONVERTER}:member_id>/role")
@allowed_while_suspended
def set_role(member_id: int) -> BaseResponse:
    """Change the role of a member."""
    owner, role = current_owner(), RoleForm().role.data or ""
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        memberships_engine.set_role(
            conn, current_project().id, member_id, role, acting_owner_id=owner.id, actor=owner.handle
        )
    flash("Role changed; it applies from the next page and the next call.", "success")
    return see_other(".index")


@blueprint.post(f"/<{ID_CONVERTER}:member_id>/remove")
@allowed_while_suspended
def remove(member_id: int) -> BaseResponse:
    """Remove a member with all of their participants."""
    owner = current_owner()
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        memberships_engine.remove(conn, current_project().id, member_id, acting_owner_id=owner.id, actor=owner.handle)
    flash("Removed, with all of their agents here. What they posted stays.", "success")
    return see_other(".index")


@blueprint.post("/leave")
@requires("view")
@allowed_while_suspended
def leave() -> BaseResponse:
    """Leave the project of another owner with all of one's participants."""
    owner, project = current_owner(), current_project()
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        memberships_engine.remove(conn, project.id, owner.id, acting_owner_id=owner.id, actor=owner.handle)
    flash(f"You left {project.owner}/{project.name}.", "success")
    return see_other("projects.index")


def _role_choices() -> list[tuple[str, str]]:
    return [(role, _ROLE_LABELS[role]) for role in managed_roles(current_role())]


def _render_index(form: PersonInviteForm) -> str:
    project, role = current_project(), current_role()
    form.role.choices = _role_choices()
    with connection() as conn:
        members = memberships_engine.list_members(conn, project.id)
        listed = []
        if has_right(role, "manage_participants"):
            listed = invite_queries.list_invites(conn, project.id, for_people=True, limit=_MAX_LISTED_INVITES)
        mail_states = invite_mails.find_states(conn, project.id, [invite.id for invite in listed])
        is_mailed = process_registry.has_mail_server(conn)
    form.email.description = f"{_EMAIL_HINT} The link is mailed to them." if is_mailed else _EMAIL_HINT
    return render_template(
        "memberships/index.html",
        project=project,
        members=members,
        managed_roles=managed_roles(role),
        invites=listed,
        mail_states=mail_states,
        form=form,
        my_id=current_owner().id,
    )
