"""Pictures: whether a team works well together, over a day, a week, a month or three; and the report to pass on."""

from datetime import UTC, datetime
from pathlib import Path

from flask import Response, current_app, render_template, request
from markupsafe import Markup

from bus.analytics import project_metrics, report_cache
from bus.analytics.project_metrics import PERIODS, Period
from webapp import project_charts
from webapp.blueprints import Entry, ProjectPages, current_project, render
from webapp.context import reading, writing
from webapp.forms import this_page
from webapp.project_charts import Gallery

pages = ProjectPages("pictures", tab=Entry("Pictures", 45))

_USUAL = "7d"
_FILE_STYLES = ("bus.css", "drawing.css", "report.css")


@pages.get("/")
def index() -> str | Response:
    """The pictures over the period that the address names."""
    period = _asked_period()
    return render(
        "pictures/index.html",
        project=current_project(),
        gallery=_gallery(period),
        periods=_switch(period),
        here=this_page(),
        words=project_charts.PERIOD_WORDS[period.name],
    )


@pages.get("/report")
def report() -> str | Response:
    """What the whole ledger says: the report of `llm-bus report`."""
    with reading() as conn:
        found = report_cache.get(conn, current_project().id)
    return render(
        "pictures/report.html",
        part="pictures/_report.html",
        project=current_project(),
        found=found,
        report=found.report,
    )


@pages.get("/report.html")
def report_file() -> Response:
    """Report and pictures as one file, which needs nothing else and can be passed on."""
    period, project = _asked_period("30d"), current_project()
    with reading() as conn:
        found = report_cache.get(conn, project.id)
    answer = Response(
        render_template(
            "pictures/file.html",
            project=project,
            found=found,
            report=found.report,
            gallery=_gallery(period),
            words=project_charts.PERIOD_WORDS[period.name],
            styles=_styles(),
        ),
        mimetype="text/html",
    )
    name = f"llm-bus-report-{project.id}-{datetime.now(UTC):%Y-%m-%d}.html"
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


def _gallery(period: Period) -> Gallery:
    with writing() as conn:
        project_metrics.begin(conn)
        return project_charts.hang(project_metrics.read(conn, current_project().id, period))


def _asked_period(usual: str = _USUAL) -> Period:
    return PERIODS.get(request.args.get("period", usual), PERIODS[usual])


def _switch(period: Period) -> list[tuple[str, str, bool]]:
    return [(project_charts.PERIOD_LABELS[name], this_page(period=name), name == period.name) for name in PERIODS]


def _styles() -> Markup:
    """The look of the admin for a file that has no other: what is in our static files is ours."""
    assert current_app.static_folder is not None
    folder = Path(current_app.static_folder)
    return Markup("\n").join(Markup((folder / name).read_text("utf-8")) for name in _FILE_STYLES)  # noqa: S704
