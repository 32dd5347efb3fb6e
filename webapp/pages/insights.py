"""Insights: charts of a project over a day, a week, a month or three; and its report."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flask import Response, current_app, render_template, request
from markupsafe import Markup

from bus.analytics import project_metrics, report_cache
from bus.analytics.project_metrics import PERIODS, Period
from bus.coordination import ledger
from bus.rules.client_names import CLIENT_LABELS
from bus.rules.delivery_labels import WAKE_LABELS
from webapp import project_charts
from webapp.blueprints import NavItem, ProjectBlueprint, current_project, render_page
from webapp.context import connection, transaction
from webapp.pagination import current_url
from webapp.project_charts import ProjectCharts

blueprint = ProjectBlueprint("insights", tab=NavItem("Insights", 45, "chart-no-axes-column"))

_DEFAULT_PERIOD = "7d"
# For a ledger that is younger, of which a week would be a line at the edge.
_FIRST_PERIOD, _FIRST_PERIOD_LENGTH = "24h", timedelta(hours=24)
_REPORT_LABELS = {"wake_labels": WAKE_LABELS, "client_labels": CLIENT_LABELS}
_REPORT_STYLESHEETS = ("bus.css", "pages.css", "charts.css", "report.css")


@blueprint.get("/")
def index() -> str | Response:
    """Show the charts of the requested period."""
    period = _requested_period(_default_period())
    return render_page(
        "insights/index.html",
        project=current_project(),
        charts=_build_charts(period),
        period_links=_build_period_links(period),
        current_url=current_url(),
        period_phrase=project_charts.PERIOD_PHRASES[period.name],
    )


@blueprint.get("/report")
def report() -> str | Response:
    """Show the report of the whole ledger, as `llm-bus report` prints it."""
    with connection() as conn:
        cached_report = report_cache.get_report(conn, current_project().id)
    return render_page(
        "insights/report.html",
        part="insights/_report.html",
        project=current_project(),
        cached_report=cached_report,
        report=cached_report.report,
        **_REPORT_LABELS,
    )


@blueprint.get("/report.html")
def report_file() -> Response:
    """Download the report and the charts as one self-contained file."""
    period, project = _requested_period("30d"), current_project()
    with connection() as conn:
        cached_report = report_cache.get_report(conn, project.id)
    response = Response(
        render_template(
            "insights/report_file.html",
            project=project,
            cached_report=cached_report,
            report=cached_report.report,
            **_REPORT_LABELS,
            charts=_build_charts(period),
            period_phrase=project_charts.PERIOD_PHRASES[period.name],
            stylesheet=_inline_styles(),
        ),
        mimetype="text/html",
    )
    filename = f"llm-bus-report-{project.id}-{datetime.now(UTC):%Y-%m-%d}.html"
    response.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    return response


def _build_charts(period: Period) -> ProjectCharts:
    with transaction() as conn:
        project_metrics.begin_snapshot(conn)
        return project_charts.build_charts(project_metrics.get_project_metrics(conn, current_project().id, period))


def _default_period() -> str:
    with connection() as conn:
        began_at = ledger.find_beginning(conn, current_project().id)
    is_young = began_at is not None and datetime.now(UTC) - began_at < _FIRST_PERIOD_LENGTH
    return _FIRST_PERIOD if is_young else _DEFAULT_PERIOD


def _requested_period(default: str) -> Period:
    return PERIODS.get(request.args.get("period", default), PERIODS[default])


def _build_period_links(period: Period) -> list[tuple[str, str, bool]]:
    return [(project_charts.PERIOD_LABELS[name], current_url(period=name), name == period.name) for name in PERIODS]


def _inline_styles() -> Markup:
    """The stylesheets for a file that cannot link to them; they are trusted static files."""
    assert current_app.static_folder is not None
    folder = Path(current_app.static_folder)
    styles = "\n".join((folder / name).read_text("utf-8") for name in _REPORT_STYLESHEETS)
    # A single file has no font beside it.
    return Markup(re.sub(r"@font-face \{[^}]*\}", "", styles))  # noqa: S704
