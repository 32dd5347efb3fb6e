"""Who is in a project: letting in, lanes and rights, tokens, and the end of a grant."""

from datetime import timedelta

from flask import Response, flash, render_template, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse
from wtforms import BooleanField

from bus import limits
from bus.db import Connection
from bus.tenancy import participant_queries, participations, tokens
from bus.tenancy.participant_queries import ParticipationDetail
from bus.tenancy.participations import IssuedParticipation
from webapp.auth import current_owner
from webapp.blueprints import NavItem, ProjectBlueprint, current_project, render_page, see_other
from webapp.context import connection, redirect_on_refusal, show_refusal_on_form, transaction
from webapp.forms import (
    ADMIN_DESCRIPTION,
    ID_CONVERTER,
    PAGE_SIZE,
    current_caller,
    current_url,
    kind_field,
    optional_text_field,
    query_int,
    required_text_field,
    split_page,
    store_credentials,
    token_lifetime_field,
)

blueprint = ProjectBlueprint("project_participants", path="participants", tab=NavItem("Participants", 15))


class AddParticipantForm(FlaskForm):  # type: ignore[misc]
    """Whom to let in, and on which terms."""

    name = required_text_field(
        "Name", limits.MAX_LABEL_LENGTH, description="What others call it here, such as api-agent."
    )
    kind = kind_field()
    lane = optional_text_field(
        "Lane", limits.MAX_LABEL_LENGTH, description="What it works on, such as review. Posts to it reach its members."
    )
    is_admin = BooleanField("Project-admin", description=ADMIN_DESCRIPTION)
    lives = token_lifetime_field("Its token lives")


class ParticipationForm(FlaskForm):  # type: ignore[misc]
    """The lane and the right of a participation."""

    lane = optional_text_field(
        "Granted lane",
        limits.MAX_LABEL_LENGTH,
        description="It stays in the lane that it registered itself, if it did.",
    )
    is_admin = BooleanField("Project-admin", description=ADMIN_DESCRIPTION)


class TokenForm(FlaskForm):  # type: ignore[misc]
    """One more token."""

    label = optional_text_field(
        "Label", limits.MAX_LABEL_LENGTH, description="For you to tell it apart, such as laptop."
    )
    lives = token_lifetime_field("It lives")


@blueprint.get("/")
def index() -> str | Response:
    """Everyone in the project, newest first."""
    current_caller()
    project, before = current_project(), query_int("before")
    with connection() as conn:
        rows, more = split_page(
            participant_queries.list_participation_details(conn, project.owner_id, project.id, before=before, limit=PAGE_SIZE + 1)
        )
    return render_page(
        "project_participants/index.html",
        part="project_participants/_list.html",
        project=project,
        participations=rows,
        current_url=current_url(),
        older=current_url(before=str(rows[-1].id)) if more else None,
        newest=current_url(before=None) if before else None,
    )


@blueprint.get("/new")
def new() -> str:
    """The form that lets somebody in."""
    return _render_new(AddParticipantForm())


@blueprint.post("/new")
def create() -> BaseResponse | tuple[str, int]:
    """Let a participant in, new or known, and show its card."""
    form, project = AddParticipantForm(), current_project()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            granted = participations.join(
                conn,
                project.id,
                form.name.data,
                kind=form.kind.data,
                lane=form.lane.data,
                is_admin=form.is_admin.data,
                ttl=_token_ttl(form.lives.data),
                actor=current_owner().handle,
            )
            key = store_token(conn, granted, project.id)
    if form.errors:
        return _render_new(form), 400
    return see_other("credentials.show", key=key)


def _render_new(form: AddParticipantForm) -> str:
    project = current_project()
    with connection() as conn:
        known = participant_queries.list_participants_outside_project(conn, project.owner_id, project.id)
    return render_template(
        "project_participants/new.html", project=project, form=form, reusable_labels=[label for _, label in known]
    )


@blueprint.get(f"/<{ID_CONVERTER}:participation_id>")
def show(participation_id: int) -> str:
    """One participation: its terms and its tokens."""
    return _render_participation(participation_id)


def _render_participation(
    participation_id: int, participation_form: ParticipationForm | None = None, token_form: TokenForm | None = None
) -> str:
    project = current_project()
    with connection() as conn:
        member = _get_participation(conn, participation_id)
        found, more = split_page(tokens.list_tokens(conn, member.id, before=query_int("before"), limit=PAGE_SIZE + 1))
    return render_template(
        "project_participants/show.html",
        project=project,
        participation=member,
        tokens=found,
        older=current_url(before=str(found[-1].id)) if more else None,
        participation_form=participation_form
        or ParticipationForm(formdata=None, lane=member.granted_lane, is_admin=member.is_admin),
        token_form=token_form or TokenForm(formdata=None),
    )


@blueprint.post(f"/<{ID_CONVERTER}:participation_id>/terms")
def update_participation(participation_id: int) -> BaseResponse | tuple[str, int]:
    """Change lane and right."""
    form, project = ParticipationForm(), current_project()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            member = _get_participation(conn, participation_id)
            actor = current_owner().handle
            # Only what was changed is done, so that the audit tells it.
            if member.granted_lane != form.lane.data:
                participations.set_lane(conn, project.id, member.id, form.lane.data, actor=actor)
            if member.is_admin != form.is_admin.data:
                participations.set_admin(conn, project.id, member.id, form.is_admin.data, actor=actor)
    if form.errors:
        return _render_participation(participation_id, participation_form=form), 400
    flash("Saved. It counts from its next call on.", "success")
    return see_other(".show", participation_id=participation_id)


@blueprint.post(f"/<{ID_CONVERTER}:participation_id>/tokens")
def add_token(participation_id: int) -> BaseResponse | tuple[str, int]:
    """Mint one more token and show its card; the others go on working."""
    form, project = TokenForm(), current_project()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            member = _get_participation(conn, participation_id)
            granted = tokens.add(
                conn,
                project.id,
                member.id,
                label=form.label.data or "",
                ttl=_token_ttl(form.lives.data),
                actor=current_owner().handle,
            )
            key = store_token(conn, granted, project.id)
    if form.errors:
        return _render_participation(participation_id, token_form=form), 400
    return see_other("credentials.show", key=key)


@blueprint.post(f"/<{ID_CONVERTER}:participation_id>/rotate")
def rotate(participation_id: int) -> BaseResponse:
    """Mint a token, end all older ones, and show the card."""
    project = current_project()
    with redirect_on_refusal(_participation_url(participation_id)), transaction() as conn:
        member = _get_participation(conn, participation_id)
        granted = tokens.rotate(conn, project.id, member.id, actor=current_owner().handle)
        key = store_token(conn, granted, project.id)
    return see_other("credentials.show", key=key)


@blueprint.post(f"/<{ID_CONVERTER}:participation_id>/revoke")
def revoke(participation_id: int) -> BaseResponse:
    """End every token; the participant stays in the project."""
    with redirect_on_refusal(_participation_url(participation_id)), transaction() as conn:
        member = _get_participation(conn, participation_id)
        tokens.revoke_all(conn, current_project().id, member.id, actor=current_owner().handle)
    flash(f"No token of {member.label} works any more.", "success")
    return see_other(".show", participation_id=participation_id)


@blueprint.post(f"/<{ID_CONVERTER}:participation_id>/tokens/<{ID_CONVERTER}:token_id>/revoke")
def revoke_token(participation_id: int, token_id: int) -> BaseResponse:
    """End one token."""
    with redirect_on_refusal(_participation_url(participation_id)), transaction() as conn:
        _get_participation(conn, participation_id)
        tokens.revoke(conn, current_project().id, token_id, actor=current_owner().handle)
    flash("That token does not work any more.", "success")
    return see_other(".show", participation_id=participation_id, _anchor="tokens")


@blueprint.post(f"/<{ID_CONVERTER}:participation_id>/remove")
def remove(participation_id: int) -> BaseResponse:
    """Take the grant away."""
    with redirect_on_refusal(_participation_url(participation_id)), transaction() as conn:
        member = _get_participation(conn, participation_id)
        participations.remove(conn, current_project().id, member.id, actor=current_owner().handle)
    flash(f"{member.label} is no longer in this project. What it did stays in the ledger.", "success")
    return see_other(".index")


def store_token(conn: Connection, granted: IssuedParticipation, project_id: int | None) -> str:
    """Keep a token that was just minted for the page that shows it once; returns that page's key."""
    return store_credentials(
        conn,
        "token",
        token=granted.token,
        participant=granted.participant,
        actor=granted.actor,
        lane=granted.lane,
        project=granted.project,
        project_id=project_id,
    )


def _get_participation(conn: Connection, participation_id: int) -> ParticipationDetail:
    """The participation in the project at hand; 404 where it is in another."""
    project = current_project()
    return participant_queries.get_participation_detail(conn, project.owner_id, project.id, participation_id)


def _participation_url(participation_id: int) -> str:
    return url_for(".show", participation_id=participation_id)


def _token_ttl(days: str) -> timedelta | None:
    return timedelta(days=int(days)) if days else None
