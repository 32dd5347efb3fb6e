"""The owner's participants over all projects: what they are called, where they are, and their end."""

from flask import flash, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse

from bus import limits
from bus.errors import BusError
from bus.tenancy import participant_queries, participants, participations
from webapp.auth import current_owner
from webapp.blueprints import NavItem, OwnerBlueprint, see_other
from webapp.context import connection, redirect_on_refusal, show_refusal_on_form, transaction
from webapp.forms import ID_CONVERTER, PAGE_SIZE, current_url, kind_field, query_int, required_text_field, split_page

blueprint = OwnerBlueprint("participants", url_prefix="/admin/participants", nav_item=NavItem("Participants", 30))


class ParticipantForm(FlaskForm):  # type: ignore[misc]
    """A participant that is in no project yet."""

    name = required_text_field("Name", limits.MAX_LABEL_LENGTH, description="Yours alone, and never handed out again.")
    kind = kind_field()


class RenameForm(FlaskForm):  # type: ignore[misc]
    """Another name."""

    name = required_text_field(
        "Name", limits.MAX_LABEL_LENGTH, description="What it did keeps the name of then; it answers to both names."
    )


@blueprint.get("/")
def index() -> str:
    """All of them, newest first, those that were removed too."""
    before = query_int("before")
    with connection() as conn:
        rows, more = split_page(participant_queries.list_participant_summaries(conn, current_owner().id, before=before, limit=PAGE_SIZE + 1))
    return render_template(
        "participants/index.html",
        participants=[one for one in rows if one.label],
        older=current_url(before=str(rows[-1].id)) if more else None,
        newest=current_url(before=None) if before else None,
    )


@blueprint.get("/new")
def new() -> str:
    """The form for a new one."""
    return render_template("participants/new.html", form=ParticipantForm())


@blueprint.post("/new")
def create() -> BaseResponse | tuple[str, int]:
    """Make one, in no project yet."""
    form, owner = ParticipantForm(), current_owner()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            made = participants.create(conn, owner.id, form.name.data, kind=form.kind.data, actor=owner.handle)
    if form.errors:
        return render_template("participants/new.html", form=form), 400
    return see_other(".show", participant_id=made)


@blueprint.get(f"/<{ID_CONVERTER}:participant_id>")
def show(participant_id: int) -> str:
    """One of them, and the projects that it is in."""
    return _render_participant(participant_id, None)


@blueprint.post(f"/<{ID_CONVERTER}:participant_id>/rename")
def rename(participant_id: int) -> BaseResponse | tuple[str, int]:
    """Call it something else."""
    form, owner = RenameForm(), current_owner()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            participants.rename(conn, owner.id, participant_id, form.name.data, actor=owner.handle)
    if form.errors:
        return _render_participant(participant_id, form), 400
    flash("Renamed. It answers to its old name too.", "success")
    return see_other(".show", participant_id=participant_id)


@blueprint.post(f"/<{ID_CONVERTER}:participant_id>/remove")
def remove(participant_id: int) -> BaseResponse:
    """End it, in every project."""
    owner = current_owner()
    with connection() as conn:
        person = participant_queries.get_participant_summary(conn, owner.id, participant_id)
        places = participant_queries.list_participant_projects(conn, owner.id, participant_id) if person.label else []
    if request.form.get("confirm", "").strip() != person.label:
        flash(f"Nothing was removed: type {person.label} to confirm.", "error")
        return see_other(".show", participant_id=participant_id)
    with redirect_on_refusal(url_for(".show", participant_id=participant_id)):
        for place in places:
            try:
                with transaction() as conn:
                    participations.remove(
                        conn, place.project_id, place.participation_id, actor=owner.handle
                    )
            except BusError as error:
                # Somebody else took the grant away meanwhile, or the project is being deleted: then it is gone.
                if error.code != "not_found":
                    raise
        with transaction() as conn:
            participants.remove(conn, owner.id, participant_id, actor=owner.handle)
    flash(f"{person.label} is removed. Its name is not handed out again.", "success")
    return see_other(".index")


def _render_participant(participant_id: int, form: RenameForm | None) -> str:
    owner = current_owner()
    with connection() as conn:
        person = participant_queries.get_participant_summary(conn, owner.id, participant_id)
        places = participant_queries.list_participant_projects(conn, owner.id, participant_id)
    return render_template(
        "participants/show.html",
        participant=person,
        participations=places,
        form=form or RenameForm(formdata=None, name=person.label),
    )
