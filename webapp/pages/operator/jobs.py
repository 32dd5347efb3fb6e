"""What the clock does: every job, how its runs went, and a run at once."""

from flask import Response, flash, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse
from wtforms import BooleanField, SelectField

from bus.operations import jobs
from bus.operations.jobs import JobRun
from bus.operations.tables import JOB_OUTCOMES
from webapp.auth import current_owner
from webapp.blueprints import NavItem, OperatorBlueprint, render_page, see_other
from webapp.context import connection, redirect_on_refusal, transaction
from webapp.forms import PAGE_SIZE, current_url, query_int, select_choices, split_page

blueprint = OperatorBlueprint("operator_jobs", path="jobs", tab=NavItem("Jobs", 50))


class FilterForm(FlaskForm):  # type: ignore[misc]
    """Which runs to show."""

    class Meta:
        csrf = False

    name = SelectField("Job", choices=select_choices(("", "every")), validate_choice=False)
    outcome = SelectField("Outcome", choices=select_choices(("", "any"), *((one, one) for one in JOB_OUTCOMES)))
    quiet = BooleanField("Also those that found nothing to do")


@blueprint.get("/")
def index() -> str | Response:
    """Every job with its last run, what was asked for, and the history."""
    form, before = FilterForm(request.args), query_int("before")
    outcome = form.outcome.data if form.outcome.data in JOB_OUTCOMES else None
    with connection() as conn:
        known = jobs.list_definitions(conn)
        latest = {run.name: run for run in jobs.list_latest_runs(conn)}
        waiting = {one.name: one for one in jobs.list_run_requests(conn)}
        rows, more = split_page(
            jobs.list_runs(
                conn,
                name=form.name.data or None,
                outcome=outcome,
                exclude_idle=not form.quiet.data,
                before=before,
                limit=PAGE_SIZE + 1,
            )
        )
    form.name.choices = select_choices(("", "every"), *((one.name, one.name) for one in known))
    return render_page(
        "operator/jobs.html",
        part="operator/_jobs.html",
        form=form,
        has_filters=bool(form.name.data or outcome or form.quiet.data),
        jobs=known,
        latest=latest,
        pending_requests=waiting,
        runs=rows,
        redact_error=redact_error,
        current_url=current_url(),
        older=current_url(before=str(rows[-1].id)) if more else None,
        newest=current_url(before=None) if before else None,
    )


@blueprint.action("/<name>/run")
def run(name: str) -> BaseResponse:
    """Ask for a run; a worker begins it within seconds."""
    owner = current_owner()
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        asked = jobs.request_run(conn, name, owner_id=owner.id, actor=owner.handle)
    if asked:
        flash(f"{name} was asked for; a worker begins it within seconds.", "success")
    else:
        flash(f"{name} waits for a worker or runs at this moment; it was not asked for twice.", "warning")
    return see_other(".index")


def redact_error(run: JobRun) -> str:
    """What a run said went wrong: without the rows that PostgreSQL quotes, which are tenants'."""
    kept = []
    for line in (run.error or "").splitlines():
        if line.lstrip().startswith(("DETAIL:", "CONTEXT:", "LINE ", "QUERY:", "[SQL", "[parameters")):
            break
        kept.append(line)
    return "\n".join(kept)[:600]
