"""The owner's participants across all projects: creation, renaming, removal."""

from flask import flash, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse

from bus import limits
from bus.db.pagination import paginate
from bus.errors import BusError
from bus.tenancy import participant_queries, participations
from bus.tenancy import participants as participants_engine
from webapp.auth import current_owner
from webapp.blueprints import ID_CONVERTER, NavItem, OwnerBlueprint, see_other
from webapp.context import connection, redirect_on_refusal, show_refusal_on_form, transaction
from webapp.forms import kind_field, required_text_field
from webapp.pagination import PAGE_SIZE, current_url, query_int
from webapp.suspension import allowed_while_suspended

blueprint = OwnerBlueprint(
    "participants", url_prefix="/admin/participants", nav_item=NavItem("Participants", 30, "users", is_secondary=True)
)


class ParticipantForm(FlaskForm):  # type: ignore[misc]
    """A new participant in no project."""

    name = required_text_field(
        "Name", limits.MAX_LABEL_LENGTH, description="Unique among your participants, and never reused."
    )
    kind = kind_field()


class RenameForm(FlaskForm):  # type: ignore[misc]
    """A new name."""

    name = required_text_field(
        "Name", limits.MAX_LABEL_LENGTH, description="History keeps the old name; both names work."
    )


@blueprint.get("/")
def index() -> str:
    """List all participants, including removed ones, newest first."""
    before = query_int("before")
    with connection() as conn:
        rows = participant_queries.list_participant_summaries(
            conn, current_owner().id, before=before, limit=PAGE_SIZE + 1
        )
    page, has_more = paginate(rows, PAGE_SIZE)
    return render_template(
        "participants/index.html",
        participants=[participant for participant in page if participant.label],
        older=current_url(before=str(page[-1].id)) if has_more else None,
        newest=current_url(before=None) if before else None,
    )


@blueprint.get("/new")
def new() -> str:
    """Show the form for a new participant."""
    return render_template("participants/new.html", form=ParticipantForm())


@blueprint.post("/new")
def create() -> BaseResponse | tuple[str, int]:
    """Create a participant in no project."""
    form, owner = ParticipantForm(), current_owner()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            participant_id = participants_engine.create(
                conn, owner.id, form.name.data, kind=form.kind.data, actor=owner.handle
            )
    if form.errors:
        return render_template("participants/new.html", form=form), 400
    return see_other(".show", participant_id=participant_id)


@blueprint.get(f"/<{ID_CONVERTER}:participant_id>")
def show(participant_id: int) -> str:
    """Show a participant and its projects."""
    return _render_participant(participant_id, None)


@blueprint.post(f"/<{ID_CONVERTER}:participant_id>/rename")
def rename(participant_id: int) -> BaseResponse | tuple[str, int]:
    """Rename a participant."""
    form, owner = RenameForm(), current_owner()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            participants_engine.rename(conn, owner.id, participant_id, form.name.data, actor=owner.handle)
    if form.errors:
        return _render_participant(participant_id, form), 400
    flash("Renamed; the old name still works.", "success")
    return see_other(".show", participant_id=participant_id)


@blueprint.post(f"/<{ID_CONVERTER}:participant_id>/remove")
@allowed_while_suspended
def remove(participant_id: int) -> BaseResponse:
    """Remove a participant from all projects, if its name was typed to confirm."""
    owner = current_owner()
    with connection() as conn:
        participant = participant_queries.get_participant_summary(conn, owner.id, participant_id)
        memberships = (
            participant_queries.list_participant_projects(conn, owner.id, participant_id) if participant.label else []
        )
    if request.form.get("confirm", "").strip() != participant.label:
        flash(f"Nothing was removed: type {participant.label} to confirm.", "error")
        return see_other(".show", participant_id=participant_id)
    with redirect_on_refusal(url_for(".show", participant_id=participant_id)):
        for membership in memberships:
            try:
                with transaction() as conn:
                    participations.remove(conn, membership.project_id, membership.participation_id, actor=owner.handle)
            except BusError as error:
                # The participation was removed concurrently, or the project is being deleted.
                if error.code != "not_found":
                    raise
        with transaction() as conn:
            participants_engine.remove(conn, owner.id, participant_id, actor=owner.handle)
    flash(f"{participant.label} removed. The name won't be reused.", "success")
    return see_other(".index")


def _render_participant(participant_id: int, form: RenameForm | None) -> str:
    owner = current_owner()
    with connection() as conn:
        participant = participant_queries.get_participant_summary(conn, owner.id, participant_id)
        memberships = participant_queries.list_participant_projects(conn, owner.id, participant_id)
    return render_template(
        "participants/show.html",
        participant=participant,
        participations=memberships,
        form=form or RenameForm(formdata=None, name=participant.label),
    )
