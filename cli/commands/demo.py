"""`llm-bus demo`: see a bus at work."""

from pathlib import Path

import click

from cli.exit_codes import ExitCode
from cli.options import data_option, emit, json_option


@click.command("demo", short_help="Let simulated agents work through the bus, and report.")
@click.option("--agents", type=click.IntRange(3, 200), default=9, show_default=True, help="How many agents.")
@click.option("--projects", type=click.IntRange(1, 50), default=4, show_default=True, help="In how many.")
@click.option(
    "--events", type=click.IntRange(1, 1_000_000), default=591, show_default=True, help="How many they cause."
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed, the same ledgers.")
@click.option("--owner", help="Whose the projects are (handle or e-mail); default: the bus's first owner.")
@data_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    agents: int,
    projects: int,
    events: int,
    seed: int,
    owner: str | None,
    data: Path | None,
    as_json: bool,
) -> None:
    """Let a fleet of simulated agents work in new projects of the running bus, and report.

    Each agent has its own token and MCP connections, and together they keep the activity mix of the
    original service's own use. Where nothing is running, a temporary bus is started and removed. Exit code 1
    unless every call succeeded and the ledgers hold what was planned.
    """
    from cli.demo.plan import min_events

    least = min_events(agents, projects)
    if events < least:
        raise click.BadParameter(
            f"{agents} agents in {projects} projects need at least {least}.", ctx, param_hint="--events"
        )
    from cli.demo.orchestrator import run_demo
    from cli.report import format_report, format_summary_table, to_json

    outcome = run_demo(agents, projects, events, seed, owner=owner, data=data)
    title = f"LLM Bus demo: {outcome.calls} calls in {outcome.seconds:.1f} s, seed {seed}"
    text = [format_report(outcome.total_report, title), "", format_summary_table(outcome.project_reports)]
    if not outcome.used_temporary_bus:
        text += ["", f"One of them again: llm-bus report {outcome.total_report.projects[0]}"]
    if outcome.differences:
        text += ["", "Not as planned:", *outcome.differences]
    value = {
        "ok": not outcome.differences,
        "differences": outcome.differences,
        "seed": seed,
        "calls": outcome.calls,
        "seconds": round(outcome.seconds, 3),
        "total": to_json(outcome.total_report),
        "projects": [to_json(report) for report in outcome.project_reports],
    }
    emit(value, "\n".join(text), as_json=as_json)
    ctx.exit(ExitCode.FAILED if outcome.differences else ExitCode.OK)
