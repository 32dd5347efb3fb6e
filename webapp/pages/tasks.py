"""Tasks: a board by state, and each with what it waits for."""

from flask import Response, flash, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse
from wtforms import SelectField, TextAreaField
from wtforms.validators import Length

from bus import limits
from bus.coordination import task_queries, tasks
from bus.coordination.task_queries import TaskPage
from bus.errors import BusError, InvalidArgument
from bus.rules.enums import TASK_STATUSES
from webapp.blueprints import NavItem, ProjectBlueprint, current_project, render_page, see_other
from webapp.context import connection, redirect_on_refusal, show_refusal_on_form, transaction
from webapp.forms import (
    ID_CONVERTER,
    PAGE_SIZE,
    current_caller,
    current_url,
    optional_text_field,
    query_int,
    record_activity,
    required_text_field,
    select_choices,
)

blueprint = ProjectBlueprint("tasks", tab=NavItem("Tasks", 20))

# Of each state so many stand on the board; the rest is a click away.
_MAX_TASKS_PER_COLUMN = 15
_PRIORITY_CHOICES = select_choices(("0", "0, first"), ("1", "1"), ("2", "2, as usual"), ("3", "3"), ("4", "4, last"))


class TaskForm(FlaskForm):  # type: ignore[misc]
    """A new task."""

    title = required_text_field("Title", limits.MAX_TITLE_LENGTH)
    detail = TextAreaField("Detail", validators=[Length(max=limits.MAX_DETAIL_LENGTH)])
    lane = optional_text_field("Lane", limits.MAX_LABEL_LENGTH, description="Whose work it is, such as review.")
    owner = optional_text_field(
        "Assign to",
        limits.MAX_QUALIFIED_NAME_LENGTH,
        description="A participant, or nobody: then whoever is free takes it.",
    )
    priority = SelectField("Priority", choices=_PRIORITY_CHOICES, default="2")
    blocked_on = optional_text_field("Waits for tasks", 400, description="Their numbers, such as 12, 17.")


class AssignForm(FlaskForm):  # type: ignore[misc]
    """Who does it."""

    owner = required_text_field("Assign to", limits.MAX_QUALIFIED_NAME_LENGTH)


class FilterForm(FlaskForm):  # type: ignore[misc]
    """Which tasks to show."""

    class Meta:
        csrf = False

    lane = optional_text_field("Lane", limits.MAX_LABEL_LENGTH)
    owner = optional_text_field("Assigned to", limits.MAX_QUALIFIED_NAME_LENGTH)
    status = SelectField(
        "State", choices=select_choices(("", "every"), *((one, one.replace("_", " ")) for one in TASK_STATUSES))
    )


@blueprint.get("/")
def index() -> str | Response:
    """The board; or one state of it, with all its pages."""
    ctx, before, form = current_caller(), query_int("before"), FilterForm(request.args)
    status = form.status.data if form.status.data in TASK_STATUSES else None
    problem, columns, counts = None, {}, {}
    found = TaskPage([], None, 0)
    try:
        with connection() as conn:
            for one in [status] if status else TASK_STATUSES:
                found = task_queries.list_tasks(
                    conn,
                    ctx,
                    status=one,
                    lane=form.lane.data,
                    owner=form.owner.data,
                    before=before if status else None,
                    limit=PAGE_SIZE if status else _MAX_TASKS_PER_COLUMN,
                )
                columns[one] = found
            counts = task_queries.count_by_status(conn, ctx)
    except BusError as error:
        problem, columns = error.message, {}
    return render_page(
        "tasks/index.html",
        part="tasks/_board.html",
        project=current_project(),
        form=form,
        filtered=bool(form.lane.data or form.owner.data),
        filter_error=problem,
        status=status,
        tasks_by_status=columns,
        counts=counts,
        current_url=current_url(),
        status_urls={one: current_url(status=one, before=None) for one in TASK_STATUSES},
        older=current_url(before=str(found.next_before)) if status and found.next_before else None,
        newest=current_url(before=None) if before else None,
    )


@blueprint.get("/new")
def new() -> str:
    """The form for a new task."""
    return render_template("tasks/new.html", project=current_project(), form=TaskForm())


@blueprint.post("/new")
def create() -> BaseResponse | tuple[str, int]:
    """Make a task in the owner's name."""
    form = TaskForm()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            made = tasks.create(
                conn,
                current_caller(),
                form.title.data,
                detail=form.detail.data or None,
                lane=form.lane.data,
                owner=form.owner.data,
                priority=int(form.priority.data),
                blocked_on=_parse_task_ids(form.blocked_on.data),
            )
    if form.errors:
        return render_template("tasks/new.html", project=current_project(), form=form), 400
    record_activity("tasks")
    flash(f"Task {made.task_id} is made.", "success")
    return see_other(".show", task_id=made.task_id)


@blueprint.get(f"/<{ID_CONVERTER}:task_id>")
def show(task_id: int) -> str:
    """One task."""
    return _render_task(task_id, AssignForm(formdata=None))


@blueprint.post(f"/<{ID_CONVERTER}:task_id>/assign")
def assign(task_id: int) -> BaseResponse | tuple[str, int]:
    """Give it to somebody."""
    form = AssignForm()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            tasks.assign(conn, current_caller(), task_id, form.owner.data)
    if form.errors:
        return _render_task(task_id, form), 400
    record_activity("tasks")
    flash("Assigned.", "success")
    return see_other(".show", task_id=task_id)


@blueprint.post(f"/<{ID_CONVERTER}:task_id>/resolve")
def resolve(task_id: int) -> BaseResponse:
    """Say that what it waits for is gone."""
    with redirect_on_refusal(url_for(".show", task_id=task_id)), transaction() as conn:
        tasks.resolve(conn, current_caller(), task_id)
    record_activity("tasks")
    flash("It waits for nothing any more.", "success")
    return see_other(".show", task_id=task_id)


def _render_task(task_id: int, form: AssignForm) -> str:
    ctx = current_caller()
    with connection() as conn:
        task = task_queries.get_task(conn, ctx, task_id)
    return render_template("tasks/show.html", project=current_project(), task=task, form=form)


def _parse_task_ids(value: str | None) -> list[int]:
    pieces = (value or "").replace(",", " ").replace("#", " ").split()
    if not all(piece.isascii() and piece.isdecimal() and len(piece) < 17 for piece in pieces):
        raise InvalidArgument("blocked_on must be numbers of tasks, such as 12, 17.")
    return [int(piece) for piece in pieces]
