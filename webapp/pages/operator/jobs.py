"""The jobs of the service: their runs, and running one manually."""

from flask import Response, flash, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse
from wtforms import BooleanField, SelectField

from bus.db.pagination import paginate
from bus.operations import jobs
from bus.operations.jobs import JobRun
from bus.operations.tables import JOB_OUTCOMES
from webapp.auth import current_owner
from webapp.blueprints import NavItem, OperatorBlueprint, render_page, see_other
from webapp.context import connection, redirect_on_refusal, transaction
from webapp.forms import select_choices
from webapp.pagination import PAGE_SIZE, current_url, query_int

blueprint = OperatorBlueprint("operator_jobs", path="jobs", tab=NavItem("Jobs", 50))

_MAX_ERROR_LENGTH = 600
# PostgreSQL quotes rows of owners in these lines of its messages.
_QUOTING_LINES = ("DETAIL:", "CONTEXT:", "LINE ", "QUERY:", "[SQL", "[parameters")


class FilterForm(FlaskForm):  # type: ignore[misc]
    """Filters of the runs."""

    class Meta:
        """Filters are sent with GET and need no CSRF token."""

        csrf = False

    name = SelectField("Job", choices=select_choices(("", "Any")), validate_choice=False)
    outcome = SelectField(
        "Outcome", choices=select_choices(("", "Any"), *((outcome, outcome) for outcome in JOB_OUTCOMES))
    )
    quiet = BooleanField("Include runs without work")


@blueprint.get("/")
def index() -> str | Response:
    """List the jobs with their latest runs and pending requests, and the runs of all jobs."""
    form, before = FilterForm(request.args), query_int("before")
    outcome = form.outcome.data if form.outcome.data in JOB_OUTCOMES else None
    with connection() as conn:
        definitions = jobs.list_definitions(conn)
        latest_runs = jobs.list_latest_runs(conn)
        run_requests = jobs.list_run_requests(conn)
        rows = jobs.list_runs(
            conn,
            name=form.name.data or None,
            outcome=outcome,
            exclude_idle=not form.quiet.data,
            before=before,
            limit=PAGE_SIZE + 1,
        )
    page, has_more = paginate(rows, PAGE_SIZE)
    form.name.choices = select_choices(("", "Any"), *((job.name, job.name) for job in definitions))
    return render_page(
        "operator/jobs.html",
        part="operator/_jobs.html",
        form=form,
        has_filters=bool(form.name.data or outcome or form.quiet.data),
        jobs=definitions,
        latest={run.name: run for run in latest_runs},
        pending_requests={run_request.name: run_request for run_request in run_requests},
        runs=page,
        redact_error=redact_error,
        current_url=current_url(),
        older=current_url(before=str(page[-1].id)) if has_more else None,
        newest=current_url(before=None) if before else None,
    )


@blueprint.action("/<name>/run")
def run(name: str) -> BaseResponse:
    """Request a run; a worker starts it within seconds."""
    owner = current_owner()
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        is_new = jobs.request_run(conn, name, owner_id=owner.id, actor=owner.handle)
    if is_new:
        flash(f"{name} queued.", "success")
    else:
        flash(f"{name} is already queued or running.", "warning")
    return see_other(".index")


def redact_error(job_run: JobRun) -> str:
    """The error of a run without the rows of owners that PostgreSQL quotes in it."""
    lines = []
    for line in (job_run.error or "").splitlines():
        if line.lstrip().startswith(_QUOTING_LINES):
            break
        lines.append(line)
    return "\n".join(lines)[:_MAX_ERROR_LENGTH]
