"""`llm-bus doctor`: check a bus and show how to correct problems."""

from pathlib import Path

import click

from cli.exit_codes import ExitCode
from cli.options import data_option, emit, json_option


@click.command("doctor", short_help="Check the bus and show how to correct problems.")
@data_option
@json_option
@click.pass_context
def command(ctx: click.Context, data: Path | None, as_json: bool) -> None:
    """Check the data folder, database, migrations, clocks, jobs, Redis and ports. Exit code 1: a check failed."""
    from cli.doctor import run_checks

    findings = run_checks(data)
    ok = all(finding.ok for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{'ok  ' if finding.ok else 'BAD '} {finding.check}: {finding.detail}")
        if finding.next_step:
            lines.append(f"     {finding.next_step}")
    emit({"ok": ok, "checks": [finding.to_json() for finding in findings]}, "\n".join(lines), as_json=as_json)
    ctx.exit(ExitCode.OK if ok else ExitCode.FAILED)
