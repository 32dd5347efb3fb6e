"""What the clock does: every job, how its runs went, and a run at once."""

from flask import Response, flash, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse
from wtforms import BooleanField, SelectField

from bus.operations import jobs
from bus.operations.jobs import Run
from bus.operations.tables import JOB_OUTCOMES
from webapp.auth import current_owner
from webapp.blueprints import Entry, OperatorPages, render, see_other
from webapp.context import reading, refused_to, writing
from webapp.forms import PER_PAGE, asked_number, choices, split, this_page

pages = OperatorPages("operator_jobs", path="jobs", tab=Entry("Jobs", 50))


class FilterForm(FlaskForm):  # type: ignore[misc]
    """Which runs to show."""

    class Meta:
        csrf = False

    name = SelectField("Job", choices=choices(("", "every")), validate_choice=False)
    outcome = SelectField("Outcome", choices=choices(("", "any"), *((one, one) for one in JOB_OUTCOMES)))
    quiet = BooleanField("Also those that found nothing to do")


@pages.get("/")
def index() -> str | Response:
    """Every job with its last run, what was asked for, and the history."""
    form, before = FilterForm(request.args), asked_number("before")
    outcome = form.outcome.data if form.outcome.data in JOB_OUTCOMES else None
    with reading() as conn:
        known = jobs.list_known(conn)
        latest = {run.name: run for run in jobs.list_latest(conn)}
        waiting = {one.name: one for one in jobs.list_requests(conn)}
        rows, more = split(
            jobs.list_(
                conn,
                name=form.name.data or None,
                outcome=outcome,
                busy=not form.quiet.data,
                before=before,
                limit=PER_PAGE + 1,
            )
        )
    form.name.choices = choices(("", "every"), *((one.name, one.name) for one in known))
    return render(
        "operator/jobs.html",
        part="operator/_jobs.html",
        form=form,
        asked=bool(form.name.data or outcome or form.quiet.data),
        known=known,
        latest=latest,
        waiting=waiting,
        runs=rows,
        said=said,
        here=this_page(),
        older=this_page(before=str(rows[-1].id)) if more else None,
        newest=this_page(before=None) if before else None,
    )


@pages.act("/<name>/run")
def run(name: str) -> BaseResponse:
    """Ask for a run; a worker begins it within seconds."""
    owner = current_owner()
    with refused_to(url_for(".index")), writing() as conn:
        asked = jobs.ask(conn, name, owner_id=owner.id, actor=owner.handle)
    if asked:
        flash(f"{name} was asked for; a worker begins it within seconds.", "success")
    else:
        flash(f"{name} waits for a worker or runs at this moment; it was not asked for twice.", "warning")
    return see_other(".index")


def said(run: Run) -> str:
    """What a run said went wrong: without the rows that PostgreSQL quotes, which are tenants'."""
    kept = []
    for line in (run.error or "").splitlines():
        if line.lstrip().startswith(("DETAIL:", "CONTEXT:", "LINE ", "QUERY:", "[SQL", "[parameters")):
            break
        kept.append(line)
    return "\n".join(kept)[:600]
