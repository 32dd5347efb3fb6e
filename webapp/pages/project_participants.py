"""The participants of a project: adding and removing them, their lane and rights, their tokens."""

from datetime import timedelta
from typing import Any

from flask import Response, flash, render_template, url_for
from flask_wtf import FlaskForm
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as BaseResponse
from wtforms import BooleanField

from bus import limits
from bus.db import Connection
from bus.db.pagination import paginate
from bus.rules.member_rights import managed_roles
from bus.tenancy import client_grants, memberships, participant_queries, participations, tokens
from bus.tenancy.participant_queries import ParticipationDetail
from webapp.auth import current_owner
from webapp.blueprints import (
    ID_CONVERTER,
    NavItem,
    ProjectBlueprint,
    current_project,
    current_role,
    may,
    render_page,
    requires,
    see_other,
)
from webapp.context import connection, redirect_on_refusal, show_refusal_on_form, transaction
from webapp.forms import (
    ADMIN_DESCRIPTION,
    kind_field,
    optional_text_field,
    required_text_field,
    scope_field,
    token_lifetime_field,
)
from webapp.one_time_credentials import store_token
from webapp.pagination import PAGE_SIZE, current_url, query_int
from webapp.suspension import allowed_while_suspended
from webapp.token_connection import connection_values

blueprint = ProjectBlueprint(
    "project_participants", path="participants", tab=NavItem("Participants", 60, "users", is_secondary=True)
)


class AddParticipantForm(FlaskForm):  # type: ignore[misc]
    """A participant to add, new or existing."""

    name = required_text_field("Name", limits.MAX_LABEL_LENGTH, description="Shown to others, e.g. api-agent.")
    kind = kind_field()
    lane = optional_text_field(
        "Lane", limits.MAX_LABEL_LENGTH, description="Its area of work, e.g. review. Posts to a lane reach its members."
    )
    is_admin = BooleanField("Project-admin", description=ADMIN_DESCRIPTION)
    scope = scope_field()
    lives = token_lifetime_field("Token expires")


class ParticipationForm(FlaskForm):  # type: ignore[misc]
    """The lane and the rights of a participation."""

    lane = optional_text_field(
        "Default lane", limits.MAX_LABEL_LENGTH, description="Used until the agent registers a lane itself."
    )
    is_admin = BooleanField("Project-admin", description=ADMIN_DESCRIPTION)


class TokenForm(FlaskForm):  # type: ignore[misc]
    """An additional token."""

    label = optional_text_field("Label", limits.MAX_LABEL_LENGTH, description="To recognize it later, e.g. laptop.")
    scope = scope_field()
    lives = token_lifetime_field("Expires")


@blueprint.get("/")
def index() -> str | Response:
    """List the participants, newest first."""
    project, before = current_project(), query_int("before")
    with connection() as conn:
        rows = participant_queries.list_participation_details(
            conn, project.owner_id, project.id, before=before, limit=PAGE_SIZE + 1
        )
    page, has_more = paginate(rows, PAGE_SIZE)
    return render_page(
        "project_participants/index.html",
        part="project_participants/_list.html",
        project=project,
        participations=page,
        current_url=current_url(),
        older=current_url(before=str(page[-1].id)) if has_more else None,
        newest=current_url(before=None) if before else None,
    )


@blueprint.get("/new")
@requires("act")
def new() -> str:
    """Show the form that adds a participant."""
    return _render_new(AddParticipantForm())


@blueprint.post("/new")
def create() -> BaseResponse | tuple[str, int]:
    """Add a participant, new or existing, and show its token."""
    form, project = AddParticipantForm(), current_project()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            issued = participations.join(
                conn,
                project.id,
                form.name.data,
                kind=form.kind.data,
                lane=form.lane.data,
                is_admin=form.is_admin.data,
                ttl=_token_ttl(form.lives.data),
                member_id=current_owner().id,
                scope=form.scope.data,
                actor=current_owner().handle,
            )
            key = store_token(conn, issued, project.id)
    if form.errors:
        return _render_new(form), 400
    return see_other("credentials.show", key=key)


@blueprint.get(f"/<{ID_CONVERTER}:participation_id>")
def show(participation_id: int) -> str:
    """Show a participation with its tokens."""
    return _render_participation(participation_id)


@blueprint.get(f"/<{ID_CONVERTER}:participation_id>/tokens/<{ID_CONVERTER}:token_id>/connection")
def connection_status(participation_id: int, token_id: int) -> str | Response:
    """Show whether an agent has connected with a token; the page of a new token polls it."""
    project = current_project()
    with connection() as conn:
        is_mine = _get_participation(conn, participation_id).owner_id == current_owner().id
        use = tokens.find_use(conn, project.id, participation_id, token_id) if is_mine else None
    if use is None:
        raise NotFound
    return render_page(
        "project_participants/connection.html",
        part="project_participants/_connection.html",
        project=project,
        participation_id=participation_id,
        connection_url=current_url(),
        **connection_values(use),
    )


@blueprint.post(f"/<{ID_CONVERTER}:participation_id>/terms")
def update_participation(participation_id: int) -> BaseResponse | tuple[str, int]:
    """Change the lane and the rights."""
    form, project = ParticipationForm(), current_project()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            participation, owner = _get_participation(conn, participation_id), current_owner()
            acting: dict[str, Any] = {"acting_owner_id": owner.id, "actor": owner.handle}
            # Only actual changes are written to the audit log.
            if participation.granted_lane != form.lane.data:
                participations.set_lane(conn, project.id, participation.id, form.lane.data, **acting)
            # The form of others has no such field.
            if may("manage_project") and participation.is_admin != form.is_admin.data:
                participations.set_admin(conn, project.id, participation.id, form.is_admin.data, **acting)
    if form.errors:
        return _render_participation(participation_id, participation_form=form), 400
    flash("Saved; applies from the next call.", "success")
    return see_other(".show", participation_id=participation_id)


@blueprint.post(f"/<{ID_CONVERTER}:participation_id>/tokens")
def add_token(participation_id: int) -> BaseResponse | tuple[str, int]:
    """Add a token and show it; the others keep working."""
    form, project = TokenForm(), current_project()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            participation = _get_participation(conn, participation_id)
            issued = tokens.add(
                conn,
                project.id,
                participation.id,
                label=form.label.data or "",
                ttl=_token_ttl(form.lives.data),
                member_id=current_owner().id,
                scope=form.scope.data,
                actor=current_owner().handle,
            )
            key = store_token(conn, issued, project.id)
    if form.errors:
        return _render_participation(participation_id, token_form=form), 400
    return see_other("credentials.show", key=key)


@blueprint.post(f"/<{ID_CONVERTER}:participation_id>/rotate")
def rotate(participation_id: int) -> BaseResponse:
    """Replace all tokens by a new one, and show it."""
    project = current_project()
    with redirect_on_refusal(_participation_url(participation_id)), transaction() as conn:
        participation = _get_participation(conn, participation_id)
        owner = current_owner()
        issued = tokens.rotate(conn, project.id, participation.id, member_id=owner.id, actor=owner.handle)
        key = store_token(conn, issued, project.id)
    return see_other("credentials.show", key=key)


@blueprint.post(f"/<{ID_CONVERTER}:participation_id>/revoke")
@allowed_while_suspended
def revoke(participation_id: int) -> BaseResponse:
    """Revoke all tokens; the participant stays in the project."""
    with redirect_on_refusal(_participation_url(participation_id)), transaction() as conn:
        participation = _get_participation(conn, participation_id)
        owner = current_owner()
        tokens.revoke_all(conn, current_project().id, participation.id, acting_owner_id=owner.id, actor=owner.handle)
    flash(f"All tokens of {participation.label} revoked.", "success")
    return see_other(".show", participation_id=participation_id)


@blueprint.post(f"/<{ID_CONVERTER}:participation_id>/tokens/<{ID_CONVERTER}:token_id>/revoke")
@allowed_while_suspended
def revoke_token(participation_id: int, token_id: int) -> BaseResponse:
    """Revoke one token."""
    with redirect_on_refusal(_participation_url(participation_id)), transaction() as conn:
        _get_participation(conn, participation_id)
        owner = current_owner()
        tokens.revoke(conn, current_project().id, token_id, acting_owner_id=owner.id, actor=owner.handle)
    flash("Token revoked.", "success")
    return see_other(".show", participation_id=participation_id, _anchor="tokens")


@blueprint.post(f"/<{ID_CONVERTER}:participation_id>/remove")
@allowed_while_suspended
def remove(participation_id: int) -> BaseResponse:
    """Remove a participant from the project."""
    with redirect_on_refusal(_participation_url(participation_id)), transaction() as conn:
        participation = _get_participation(conn, participation_id)
        owner = current_owner()
        participations.remove(
            conn, current_project().id, participation.id, acting_owner_id=owner.id, actor=owner.handle
        )
    flash(f"{participation.label} removed from this project. Its history stays in the ledger.", "success")
    return see_other(".index")


def _render_new(form: AddParticipantForm) -> str:
    project = current_project()
    with connection() as conn:
        reusable = participant_queries.list_participants_outside_project(conn, current_owner().id, project.id)
    return render_template(
        "project_participants/new.html", project=project, form=form, reusable_labels=[label for _, label in reusable]
    )


def _render_participation(
    participation_id: int, participation_form: ParticipationForm | None = None, token_form: TokenForm | None = None
) -> str:
    project = current_project()
    with connection() as conn:
        participation = _get_participation(conn, participation_id)
        participation_role = memberships.find_role(conn, participation.owner_id, project.id)
        rows = tokens.list_tokens(conn, participation.id, before=query_int("before"), limit=PAGE_SIZE + 1)
        connected = client_grants.list_connected(conn, current_owner().id, participation_id=participation.id)
    page, has_more = paginate(rows, PAGE_SIZE)
    return render_template(
        "project_participants/show.html",
        project=project,
        participation=participation,
        is_mine=participation.owner_id == current_owner().id,
        is_managed=may("manage_project")
        or participation.owner_id == current_owner().id
        or participation_role in managed_roles(current_role()),
        tokens=page,
        connected_clients=connected,
        older=current_url(before=str(page[-1].id)) if has_more else None,
        participation_form=participation_form
        or ParticipationForm(formdata=None, lane=participation.granted_lane, is_admin=participation.is_admin),
        token_form=token_form or TokenForm(formdata=None),
    )


def _get_participation(conn: Connection, participation_id: int) -> ParticipationDetail:
    """The participation in the current project; 404 if it is in another one."""
    project = current_project()
    return participant_queries.get_participation_detail(conn, project.owner_id, project.id, participation_id)


def _participation_url(participation_id: int) -> str:
    return url_for(".show", participation_id=participation_id)


def _token_ttl(days: str) -> timedelta | None:
    return timedelta(days=int(days)) if days else None
