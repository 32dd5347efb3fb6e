"""The owner's participants over all projects: what they are called, where they are, and their end."""

from flask import flash, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse

from bus import limits
from bus.errors import BusError
from bus.tenancy import participations, people
from webapp.auth import current_owner
from webapp.blueprints import Entry, Pages, see_other
from webapp.context import reading, refused_on, refused_to, writing
from webapp.forms import ID, PER_PAGE, asked_number, kind_field, needed, split, this_page

pages = Pages("participants", prefix="/admin/participants", entry=Entry("Participants", 30))


class ParticipantForm(FlaskForm):  # type: ignore[misc]
    """A participant that is in no project yet."""

    name = needed("Name", limits.LABEL, description="Yours alone, and never handed out again.")
    kind = kind_field()


class NameForm(FlaskForm):  # type: ignore[misc]
    """Another name."""

    name = needed("Name", limits.LABEL, description="What it did keeps the name of then; it answers to both names.")


@pages.get("/")
def index() -> str:
    """All of them, newest first, those that were removed too."""
    before = asked_number("before")
    with reading() as conn:
        rows, more = split(people.list_(conn, current_owner().id, before=before, limit=PER_PAGE + 1))
    return render_template(
        "participants/index.html",
        people=[one for one in rows if one.label],
        older=this_page(before=str(rows[-1].id)) if more else None,
        newest=this_page(before=None) if before else None,
    )


@pages.get("/new")
def new() -> str:
    """The form for a new one."""
    return render_template("participants/new.html", form=ParticipantForm())


@pages.post("/new")
def create() -> BaseResponse | tuple[str, int]:
    """Make one, in no project yet."""
    form, owner = ParticipantForm(), current_owner()
    if form.validate():
        with refused_on(form), writing() as conn:
            made = people.create(conn, owner.id, form.name.data, kind=form.kind.data, actor=owner.handle)
    if form.errors:
        return render_template("participants/new.html", form=form), 400
    return see_other(".show", participant_id=made)


@pages.get(f"/<{ID}:participant_id>")
def show(participant_id: int) -> str:
    """One of them, and the projects that it is in."""
    return _show(participant_id, None)


@pages.post(f"/<{ID}:participant_id>/rename")
def rename(participant_id: int) -> BaseResponse | tuple[str, int]:
    """Call it something else."""
    form, owner = NameForm(), current_owner()
    if form.validate():
        with refused_on(form), writing() as conn:
            people.rename(conn, owner.id, participant_id, form.name.data, actor=owner.handle)
    if form.errors:
        return _show(participant_id, form), 400
    flash("Renamed. It answers to its old name too.", "success")
    return see_other(".show", participant_id=participant_id)


@pages.post(f"/<{ID}:participant_id>/remove")
def remove(participant_id: int) -> BaseResponse:
    """End it, in every project."""
    owner = current_owner()
    with reading() as conn:
        person = people.get(conn, owner.id, participant_id)
        places = people.list_places(conn, owner.id, participant_id) if person.label else []
    if request.form.get("confirm", "").strip() != person.label:
        flash(f"Nothing was removed: type {person.label} to confirm.", "error")
        return see_other(".show", participant_id=participant_id)
    with refused_to(url_for(".show", participant_id=participant_id)):
        for place in places:
            try:
                with writing() as conn:
                    participations.remove(conn, place.project_id, place.participation_id, actor=owner.handle)
            except BusError as error:
                # Somebody else took the grant away meanwhile, or the project is being deleted: then it is gone.
                if error.code != "not_found":
                    raise
        with writing() as conn:
            people.remove(conn, owner.id, participant_id, actor=owner.handle)
    flash(f"{person.label} is removed. Its name is not handed out again.", "success")
    return see_other(".index")


def _show(participant_id: int, form: NameForm | None) -> str:
    owner = current_owner()
    with reading() as conn:
        person = people.get(conn, owner.id, participant_id)
        places = people.list_places(conn, owner.id, participant_id)
    return render_template(
        "participants/show.html",
        person=person,
        places=places,
        form=form or NameForm(formdata=None, name=person.label),
    )
