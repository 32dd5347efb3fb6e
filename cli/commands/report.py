"""`llm-bus report`: statistics of a project's ledger."""

from contextlib import closing
from pathlib import Path

import click

from cli.options import data_option, emit, json_option


@click.command("report", short_help="Show statistics of a project: activity, handoffs, leases, tasks.")
@click.argument("project")
@data_option
@json_option
def command(project: str, data: Path | None, as_json: bool) -> None:
    """Show statistics of the ledger of PROJECT (NAME or HANDLE/NAME): events by type, handoffs, leases, tasks.

    The time to acknowledge ends with the first ack by a participant other than the sender. A collision is a lease
    that overlapped a live lease of another participant.
    """
    from bus.analytics import reports
    from bus.db import Database
    from bus.tenancy import projects
    from cli.report import format_report, to_json
    from cli.runtime import settings_for_cli

    # Not in one transaction: a long ledger needs many statements, and no transaction should last that long.
    url = settings_for_cli(data).database_url
    with closing(Database(url, pool_size=1, application_name="llm-bus cli")) as database, database.connection() as conn:
        report = reports.build_report(conn, projects.get_by_name(conn, project).id)
    emit(to_json(report), format_report(report, f"LLM Bus report: {report.projects[0]}"), as_json=as_json)
