"""`llm-bus import`: move the data of the original, of beads and of mcp_agent_mail into this bus."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import data_option, emit, format_table, json_option

if TYPE_CHECKING:
    from bus.imports.findings import Finding
    from bus.imports.original import ImportReport


@click.group("import", short_help="Move over from the original, beads or mcp_agent_mail.")
def command() -> None:
    """Import the data of other services. An import may be repeated; what is imported already stays as it is."""


@command.command("original")
@click.argument("database_url", required=False)
@click.option("--dry-run", is_flag=True, help="Import everything, show the report and undo it all.")
@data_option
@json_option
def import_original(database_url: str | None, dry_run: bool, data: Path | None, as_json: bool) -> None:
    """Import the database DATABASE_URL of the original LLM Bus 2.0, or else that of ORIGINAL_DATABASE_URL.

    Stop the original first. Nothing is written to its database. Owners are found by e-mail address; agents go on with
    their tokens. A project opens when it agrees with the original in counts and next numbers. After an interruption run
    the command again.
    """
    from cli.import_original import run_import

    report = run_import(database_url, data, dry_run=dry_run, progress=_show_progress)
    emit(_to_json(report, dry_run), _describe(report, dry_run), as_json=as_json)


@command.command("beads")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--project", required=True, help="The project that gets the tasks.")
@data_option
@json_option
def import_beads(file: Path, project: str, data: Path | None, as_json: bool) -> None:
    """Import the issues of beads that are not closed as tasks, from its FILE of JSON lines (.beads/issues.jsonl)."""
    import dataclasses

    from bus.imports import beads
    from cli.import_files import owner_of_project, transactions

    with transactions(data) as open_transaction:
        ctx = owner_of_project(open_transaction, project)
        report = beads.import_issues(open_transaction, ctx, file.read_text(encoding="utf-8").splitlines())
    counts = f"{len(report.imported)} tasks imported, {report.unchanged} known already, {report.done} done left out."
    emit(dataclasses.asdict(report), "\n".join([counts, *_describe_findings(report.findings)]), as_json=as_json)


@command.command("agent-mail")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--project", required=True, help="The project that gets agents, messages and leases.")
@data_option
@json_option
def import_agent_mail(folder: Path, project: str, data: Path | None, as_json: bool) -> None:
    """Import agents, messages and live reservations of mcp_agent_mail from the FOLDER of one project's archive.

    New agents get tokens, which are shown once.
    """
    import dataclasses

    from bus.imports import agent_mail
    from cli.import_files import owner_of_project, transactions

    with transactions(data) as open_transaction:
        ctx = owner_of_project(open_transaction, project)
        report = agent_mail.import_archive(open_transaction, ctx.project_id, folder, actor="cli")
    lines = [
        f"{len(report.agents)} agents, {report.messages} messages and {report.leases} leases imported;"
        f" {report.unchanged} messages left as they are.",
        *(f"{issued.actor}: {issued.token}" for issued in report.agents),
        *_describe_findings(report.findings),
    ]
    emit(dataclasses.asdict(report), "\n".join(lines), as_json=as_json)


@command.command("find")
@click.argument("project")
@click.argument("original_id")
@data_option
@json_option
def find(project: str, original_id: str, data: Path | None, as_json: bool) -> None:
    """Show the number in PROJECT of what had the id ORIGINAL_ID before its import."""
    from bus.imports import former_ids
    from bus.tenancy import projects
    from cli.database import transaction
    from cli.exit_codes import CliError, ExitCode

    with transaction(data) as conn:
        matches = former_ids.find(conn, projects.get_by_name(conn, project).id, original_id)
    if not matches:
        raise CliError(f"Nothing with the id {original_id} was imported into {project}.", ExitCode.NOT_FOUND)
    rows = [(former.kind, former.number) for former in matches]
    emit(
        {"found": [{"kind": kind, "number": number} for kind, number in rows]},
        format_table(("KIND", "NUMBER"), rows),
        as_json=as_json,
    )


def _show_progress(project: str, done: int, total: int) -> None:
    click.echo(f"{project}: {done:,} of {total:,} events", err=True)


def _to_json(report: "ImportReport", dry_run: bool) -> dict[str, Any]:
    import dataclasses

    return {"dry_run": dry_run, **dataclasses.asdict(report)}


def _describe(report: "ImportReport", dry_run: bool) -> str:
    rows = [
        (
            project.project,
            project.state,
            project.counts.events,
            project.counts.posts,
            project.counts.tasks,
            project.counts.sequences,
            project.counts.tokens,
        )
        for project in report.projects
    ]
    lines = [format_table(("PROJECT", "STATE", "EVENTS", "POSTS", "TASKS", "SEQUENCES", "TOKENS"), rows)]
    lines += _describe_findings(report.findings)
    newer = [project for project in report.projects if project.newer_events]
    lines += [
        f"{project.project}: the original has {project.newer_events} events that are newer than the import. To import"
        " them, delete the project here and import again."
        for project in newer
    ]
    lines += ["", "Every project agrees with the original in counts and in the next number of each sequence."]
    if dry_run:
        lines.append("This was a dry run: nothing was changed.")
    return "\n".join(lines)


def _describe_findings(findings: "list[Finding]") -> list[str]:
    if not findings:
        return []
    return [
        "",
        "Found in the data:",
        *(
            f"- {finding.project and finding.project + ': '}{finding.problem} ({finding.count}; {finding.example})"
            for finding in findings
        ),
    ]
