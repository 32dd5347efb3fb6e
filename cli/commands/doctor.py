"""`llm-bus doctor`: what is wrong, and what to do."""

from dataclasses import asdict
from pathlib import Path

import click

from cli.exit_codes import ExitCode
from cli.options import data_option, emit, json_option


@click.command("doctor", short_help="Say what is wrong and what to do.")
@data_option
@json_option
@click.pass_context
def command(ctx: click.Context, data: Path | None, as_json: bool) -> None:
    """Check the data folder, database, migrations, clocks, Redis and ports; exit code 1 if any is bad."""
    from cli.doctor import run_checks

    findings = run_checks(data)
    good = all(finding.ok for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{'ok  ' if finding.ok else 'BAD '} {finding.check}: {finding.found}")
        if finding.to_do:
            lines.append(f"     {finding.to_do}")
    emit({"ok": good, "checks": [asdict(finding) for finding in findings]}, "\n".join(lines), as_json=as_json)
    ctx.exit(ExitCode.OK if good else ExitCode.FAILED)
