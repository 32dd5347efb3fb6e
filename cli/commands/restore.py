"""`llm-bus restore`: restore a backup into an empty database or a new data folder."""

import os
from pathlib import Path

import click

from cli.backup import Restored
from cli.exit_codes import ExitCode
from cli.options import data_option, emit, json_option


@click.command("restore", short_help="Restore a backup into an empty database.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@data_option
@json_option
@click.pass_context
def command(ctx: click.Context, file: Path, data: Path | None, as_json: bool) -> None:
    """Restore FILE, which `llm-bus backup` wrote, into the empty database DATABASE_URL, or into a new data folder.

    A backup of an older version is migrated to the schema of this one. Afterwards the integrity of the bus is
    checked: exit code 1 if the check finds a difference.
    """
    from cli import data_dir
    from cli.backup import restore_backup
    from cli.offline_postgres import running_postgres
    from cli.runtime import find_database_urls

    if os.environ.get("DATABASE_URL", "").strip():
        restored = restore_backup(find_database_urls(data), file)
    else:
        with running_postgres(data_dir.locate(data)) as urls:
            restored = restore_backup(urls, file)
    last_event_at = restored.last_event_at.isoformat() if restored.last_event_at else None
    emit(
        {
            "projects": restored.projects,
            "events": restored.events,
            "last_event_at": last_event_at,
            "discrepancies": restored.discrepancies,
        },
        _describe(restored),
        as_json=as_json,
    )
    ctx.exit(ExitCode.FAILED if restored.discrepancies else ExitCode.OK)


def _describe(restored: Restored) -> str:
    lines = [f"Restored {restored.projects} projects with {restored.events} events."]
    if restored.discrepancies:
        lines += ["The integrity check found differences:", *restored.discrepancies]
    else:
        lines.append("The integrity check found no difference.")
    if restored.last_event_at is not None:
        lines.append(
            f"The newest event is of {restored.last_event_at:%Y-%m-%d %H:%M:%S} UTC. Later acts are not in this bus: "
            "revoke again what was revoked since, and seed the sequences past numbers that were claimed since."
        )
    return "\n".join(lines)
