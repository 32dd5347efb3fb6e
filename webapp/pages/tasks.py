"""Tasks: a board by state, and each with what it waits for."""

from flask import Response, flash, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse
from wtforms import SelectField, TextAreaField
from wtforms.validators import Length

from bus import limits
from bus.coordination import task_queries, tasks
from bus.coordination.task_queries import Tasks
from bus.errors import BusError, InvalidArgument
from bus.rules.task_transitions import STATUSES
from webapp.blueprints import Entry, ProjectPages, current_project, render, see_other
from webapp.context import reading, refused_on, refused_to, writing
from webapp.forms import ID, PER_PAGE, acted, asked_number, caller, choices, needed, this_page, words

pages = ProjectPages("tasks", tab=Entry("Tasks", 20))

# Of each state so many stand on the board; the rest is a click away.
_ON_BOARD = 15
_PRIORITIES = choices(("0", "0, first"), ("1", "1"), ("2", "2, as usual"), ("3", "3"), ("4", "4, last"))


class TaskForm(FlaskForm):  # type: ignore[misc]
    """A new task."""

    title = needed("Title", limits.TITLE)
    detail = TextAreaField("Detail", validators=[Length(max=limits.DETAIL)])
    lane = words("Lane", limits.LABEL, description="Whose work it is, such as review.")
    owner = words("Assign to", limits.QUALIFIED, description="A participant, or nobody: then whoever is free takes it.")
    priority = SelectField("Priority", choices=_PRIORITIES, default="2")
    blocked_on = words("Waits for tasks", 400, description="Their numbers, such as 12, 17.")


class AssignForm(FlaskForm):  # type: ignore[misc]
    """Who does it."""

    owner = needed("Assign to", limits.QUALIFIED)


class FilterForm(FlaskForm):  # type: ignore[misc]
    """Which tasks to show."""

    class Meta:
        csrf = False

    lane = words("Lane", limits.LABEL)
    owner = words("Assigned to", limits.QUALIFIED)
    status = SelectField("State", choices=choices(("", "every"), *((one, one.replace("_", " ")) for one in STATUSES)))


@pages.get("/")
def index() -> str | Response:
    """The board; or one state of it, with all its pages."""
    ctx, before, form = caller(), asked_number("before"), FilterForm(request.args)
    status = form.status.data if form.status.data in STATUSES else None
    problem, columns, counts = None, {}, {}
    found = Tasks([], None, 0)
    try:
        with reading() as conn:
            for one in [status] if status else STATUSES:
                found = task_queries.list_(
                    conn,
                    ctx,
                    status=one,
                    lane=form.lane.data,
                    owner=form.owner.data,
                    before=before if status else None,
                    limit=PER_PAGE if status else _ON_BOARD,
                )
                columns[one] = found
            counts = task_queries.count_by_status(conn, ctx)
    except BusError as error:
        problem, columns = error.message, {}
    return render(
        "tasks/index.html",
        part="tasks/_board.html",
        project=current_project(),
        form=form,
        filtered=bool(form.lane.data or form.owner.data),
        problem=problem,
        status=status,
        columns=columns,
        counts=counts,
        here=this_page(),
        more={one: this_page(status=one, before=None) for one in STATUSES},
        older=this_page(before=str(found.next_before)) if status and found.next_before else None,
        newest=this_page(before=None) if before else None,
    )


@pages.get("/new")
def new() -> str:
    """The form for a new task."""
    return render_template("tasks/new.html", project=current_project(), form=TaskForm())


@pages.post("/new")
def create() -> BaseResponse | tuple[str, int]:
    """Make a task in the owner's name."""
    form = TaskForm()
    if form.validate():
        with refused_on(form), writing() as conn:
            made = tasks.create(
                conn,
                caller(),
                form.title.data,
                detail=form.detail.data or None,
                lane=form.lane.data,
                owner=form.owner.data,
                priority=int(form.priority.data),
                blocked_on=_numbers(form.blocked_on.data),
            )
    if form.errors:
        return render_template("tasks/new.html", project=current_project(), form=form), 400
    acted("tasks")
    flash(f"Task {made.task_id} is made.", "success")
    return see_other(".show", task_id=made.task_id)


@pages.get(f"/<{ID}:task_id>")
def show(task_id: int) -> str:
    """One task."""
    return _show(task_id, AssignForm(formdata=None))


@pages.post(f"/<{ID}:task_id>/assign")
def assign(task_id: int) -> BaseResponse | tuple[str, int]:
    """Give it to somebody."""
    form = AssignForm()
    if form.validate():
        with refused_on(form), writing() as conn:
            tasks.assign(conn, caller(), task_id, form.owner.data)
    if form.errors:
        return _show(task_id, form), 400
    acted("tasks")
    flash("Assigned.", "success")
    return see_other(".show", task_id=task_id)


@pages.post(f"/<{ID}:task_id>/resolve")
def resolve(task_id: int) -> BaseResponse:
    """Say that what it waits for is gone."""
    with refused_to(url_for(".show", task_id=task_id)), writing() as conn:
        tasks.resolve(conn, caller(), task_id)
    acted("tasks")
    flash("It waits for nothing any more.", "success")
    return see_other(".show", task_id=task_id)


def _show(task_id: int, form: AssignForm) -> str:
    ctx = caller()
    with reading() as conn:
        task = task_queries.get(conn, ctx, task_id)
    return render_template("tasks/show.html", project=current_project(), task=task, form=form)


def _numbers(said: str | None) -> list[int]:
    pieces = (said or "").replace(",", " ").replace("#", " ").split()
    if not all(piece.isascii() and piece.isdecimal() and len(piece) < 17 for piece in pieces):
        raise InvalidArgument("blocked_on must be numbers of tasks, such as 12, 17.")
    return [int(piece) for piece in pieces]
