"""Tasks of a project: by status, and each with its blockers."""

from flask import Response, flash, redirect, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse
from wtforms import HiddenField, SelectField, TextAreaField
from wtforms.validators import Length

from bus import limits
from bus.coordination import ledger, task_edits, task_queries, tasks
from bus.coordination.task_edits import TaskTexts
from bus.coordination.task_queries import TaskPage
from bus.errors import BusError, InvalidArgument
from bus.rules.enums import TASK_STATUSES
from webapp.blueprints import ID_CONVERTER, NavItem, ProjectBlueprint, current_project, render_page, requires, see_other
from webapp.caller import current_caller, record_activity
from webapp.context import connection, redirect_on_refusal, show_refusal_on_form, transaction
from webapp.forms import optional_text_field, required_text_field, select_choices
from webapp.login import safe_redirect_target
from webapp.pagination import PAGE_SIZE, current_url, query_int

blueprint = ProjectBlueprint("tasks", tab=NavItem("Tasks", 20, "list-checks"))

_STATUS_LABELS = {
    "open": "Open",
    "assigned": "Assigned",
    "in_progress": "In progress",
    "blocked": "Blocked",
    "done": "Done",
}
# The page of all tasks shows this many of each status, and links to the others.
_MAX_TASKS_PER_COLUMN = 15
_PRIORITY_CHOICES = select_choices(("0", "Urgent"), ("1", "High"), ("2", "Normal"), ("3", "Low"), ("4", "Lowest"))


class TaskForm(FlaskForm):  # type: ignore[misc]
    """A new task."""

    title = required_text_field("Title", limits.MAX_TITLE_LENGTH)
    detail = TextAreaField("Detail", validators=[Length(max=limits.MAX_DETAIL_LENGTH)])
    lane = optional_text_field("Lane", limits.MAX_LABEL_LENGTH, description="The lane that works on it, e.g. review.")
    owner = optional_text_field(
        "Assign to", limits.MAX_QUALIFIED_NAME_LENGTH, description="Leave empty so anyone can pick it up."
    )
    priority = SelectField("Priority", choices=_PRIORITY_CHOICES, default="2")
    blocked_on = optional_text_field("Blocked by", 400, description="Task numbers, e.g. 12, 17.")


class EditForm(FlaskForm):  # type: ignore[misc]
    """The texts of a task."""

    title = required_text_field("Title", limits.MAX_TITLE_LENGTH)
    detail = TextAreaField("Detail", validators=[Length(max=limits.MAX_DETAIL_LENGTH)])
    lane = optional_text_field("Lane", limits.MAX_LABEL_LENGTH, description="The lane that works on it, e.g. review.")
    priority = SelectField("Priority", choices=_PRIORITY_CHOICES)
    seen = HiddenField()


class ShipForm(FlaskForm):  # type: ignore[misc]
    """The result of a task."""

    ref = optional_text_field("Shipped as", limits.MAX_REF_LENGTH, description="A PR, a commit; may stay empty.")


class AssignForm(FlaskForm):  # type: ignore[misc]
    """The assignee of a task."""

    owner = required_text_field("Assign to", limits.MAX_QUALIFIED_NAME_LENGTH)


class FilterForm(FlaskForm):  # type: ignore[misc]
    """Filters of the list."""

    class Meta:
        """Filters are sent with GET and need no CSRF token."""

        csrf = False

    lane = optional_text_field("Lane", limits.MAX_LABEL_LENGTH)
    owner = optional_text_field("Assigned to", limits.MAX_QUALIFIED_NAME_LENGTH)
    status = SelectField(
        "Status", choices=select_choices(("", "Any"), *((status, status.replace("_", " ")) for status in TASK_STATUSES))
    )


@blueprint.get("/")
def index() -> str | Response:
    """Show the tasks by status, or all pages of one status."""
    ctx, before, form = current_caller(), query_int("before"), FilterForm(request.args)
    selected_status = form.status.data if form.status.data in TASK_STATUSES else None
    filter_error = None
    tasks_by_status: dict[str, TaskPage] = {}
    counts: dict[str, int] = {}
    try:
        with connection() as conn:
            for status in [selected_status] if selected_status else TASK_STATUSES:
                tasks_by_status[status] = task_queries.list_tasks(
                    conn,
                    ctx,
                    status=status,
                    lane=form.lane.data,
                    owner=form.owner.data,
                    before=before if selected_status else None,
                    limit=PAGE_SIZE if selected_status else _MAX_TASKS_PER_COLUMN,
                )
            counts = task_queries.count_by_status(conn, ctx)
    except BusError as error:
        filter_error, tasks_by_status = error.message, {}
    next_before = tasks_by_status[selected_status].next_before if selected_status in tasks_by_status else None
    return render_page(
        "tasks/index.html",
        part="tasks/_board.html",
        project=current_project(),
        form=form,
        filtered=bool(form.lane.data or form.owner.data),
        filter_error=filter_error,
        status=selected_status,
        tasks_by_status=tasks_by_status,
        counts=counts,
        current_url=current_url(),
        chips=[
            ("All", current_url(status=None, before=None), selected_status is None),
            *(
                (_STATUS_LABELS[status], current_url(status=status, before=None), status == selected_status)
                for status in TASK_STATUSES
            ),
        ],
        active_filters=[
            (form[name].label.text, form[name].data, current_url(**{name: None}, before=None))
            for name in ("lane", "owner")
            if form[name].data
        ],
        status_urls={status: current_url(status=status, before=None) for status in TASK_STATUSES},
        older=current_url(before=str(next_before)) if next_before else None,
        newest=current_url(before=None) if before else None,
    )


@blueprint.get("/new")
@requires("act")
def new() -> str:
    """Show the form for a new task."""
    return render_template("tasks/new.html", project=current_project(), form=TaskForm())


@blueprint.post("/new")
def create() -> BaseResponse | tuple[str, int]:
    """Create a task by the owner."""
    form = TaskForm()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            task = tasks.create(
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
    flash(f"Task #{task.task_id} created.", "success")
    return see_other(".show", task_id=task.task_id)


@blueprint.get(f"/<{ID_CONVERTER}:task_id>")
def show(task_id: int) -> str:
    """Show a task with its history."""
    return _render_task(task_id)


@blueprint.post(f"/<{ID_CONVERTER}:task_id>/assign")
def assign(task_id: int) -> BaseResponse | tuple[str, int]:
    """Assign a task."""
    form = AssignForm()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            tasks.assign(conn, current_caller(), task_id, form.owner.data)
    if form.errors:
        return _render_task(task_id, assign_form=form), 400
    record_activity("tasks")
    flash("Assigned.", "success")
    return see_other(".show", task_id=task_id)


@blueprint.post(f"/<{ID_CONVERTER}:task_id>/start")
def start(task_id: int) -> BaseResponse:
    """Start a task; one without an assignee becomes the owner's."""
    target = _return_target(task_id)
    with redirect_on_refusal(target), transaction() as conn:
        tasks.start(conn, current_caller(), task_id)
    record_activity("tasks")
    flash(f"Task #{task_id} started.", "success")
    return redirect(target, 303)


@blueprint.post(f"/<{ID_CONVERTER}:task_id>/ship")
def ship(task_id: int) -> BaseResponse | tuple[str, int]:
    """Finish a task."""
    form = ShipForm()
    if form.validate():
        with show_refusal_on_form(form, default_field="ref"), transaction() as conn:
            shipped = tasks.ship(conn, current_caller(), task_id, ref=form.ref.data)
    if form.errors:
        return _render_task(task_id, ship_form=form), 400
    record_activity("tasks")
    unblocked = ", ".join(f"#{number}" for number in shipped.unblocked)
    flash(f"Shipped. Unblocked: {unblocked}." if unblocked else "Shipped.", "success")
    return see_other(".show", task_id=task_id)


@blueprint.get(f"/<{ID_CONVERTER}:task_id>/edit")
@requires("act")
def edit(task_id: int) -> str:
    """Show the form that edits a task."""
    texts = _read_texts(task_id)
    values = {"title": texts.title, "detail": texts.detail, "lane": texts.lane, "priority": str(texts.priority)}
    form = EditForm(formdata=None, seen=texts.version, **values)
    return render_template("tasks/edit.html", project=current_project(), task_id=task_id, form=form, stored=None)


@blueprint.post(f"/<{ID_CONVERTER}:task_id>/edit")
def save(task_id: int) -> BaseResponse | tuple[str, int]:
    """Save the texts of a task. If they were changed meanwhile, show both, and let the next attempt replace them."""
    form = EditForm()
    stored = None
    if form.validate():
        texts = TaskTexts(
            form.title.data,
            # Browsers send line ends of their own.
            (form.detail.data or "").replace("\r\n", "\n") or None,
            form.lane.data,
            int(form.priority.data),
        )
        with show_refusal_on_form(form), transaction() as conn:
            task_edits.edit(conn, current_caller(), task_id, texts, seen=form.seen.data or None)
    if form.errors:
        current = _read_texts(task_id)
        if form.seen.data and form.seen.data != current.version:
            stored = current
            form.seen.data = current.version
        page = render_template("tasks/edit.html", project=current_project(), task_id=task_id, form=form, stored=stored)
        return page, 409 if stored else 400
    record_activity("tasks")
    flash("Saved.", "success")
    return see_other(".show", task_id=task_id)


@blueprint.post(f"/<{ID_CONVERTER}:task_id>/resolve")
def resolve(task_id: int) -> BaseResponse:
    """Remove all blockers of a task."""
    target = _return_target(task_id)
    with redirect_on_refusal(target), transaction() as conn:
        tasks.resolve(conn, current_caller(), task_id)
    record_activity("tasks")
    flash(f"Task #{task_id} unblocked.", "success")
    return redirect(target, 303)


def _return_target(task_id: int) -> str:
    """The address of the list on which the task was moved, else of the task."""
    return safe_redirect_target(request.form.get("next", "")) or url_for(".show", task_id=task_id)


def _render_task(task_id: int, assign_form: AssignForm | None = None, ship_form: ShipForm | None = None) -> str:
    ctx, before = current_caller(), query_int("before")
    with connection() as conn:
        task = task_queries.get_task(conn, ctx, task_id)
        history = ledger.list_task_history(conn, ctx, task_id, before=before)
    return render_template(
        "tasks/show.html",
        project=current_project(),
        task=task,
        history=history.events,
        older=url_for(".show", task_id=task_id, before=history.next_before) if history.next_before else None,
        newest=url_for(".show", task_id=task_id) if before else None,
        form=assign_form or AssignForm(formdata=None),
        ship_form=ship_form or ShipForm(formdata=None),
    )


def _parse_task_ids(value: str | None) -> list[int]:
    numbers = (value or "").replace(",", " ").replace("#", " ").split()
    if not all(number.isascii() and number.isdecimal() and len(number) < 17 for number in numbers):
        raise InvalidArgument("blocked_on must be task numbers, such as 12, 17.")
    return [int(number) for number in numbers]


def _read_texts(task_id: int) -> TaskTexts:
    with connection() as conn:
        task = task_queries.get_task(conn, current_caller(), task_id)
    return TaskTexts(task.title, task.detail, task.lane, task.priority)
