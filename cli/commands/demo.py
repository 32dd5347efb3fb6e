"""`llm-bus demo`: simulated agents that work through a bus."""

from pathlib import Path

import click
from click.core import ParameterSource

from cli.exit_codes import ExitCode
from cli.options import data_option, emit, json_option

_EVENTS_A_DAY = 90
# They are written in one transaction.
_MAX_PAST_EVENTS = 6_000


def _parse_days(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> int:
    if value is None:
        return 0
    number = value.removesuffix("d")
    if not (number.isascii() and number.isdecimal() and len(number) < 4 and 1 <= int(number) <= 60):
        raise click.BadParameter("Write a number of days such as 14d, from 1d to 60d.")
    return int(number)


@click.command("demo", short_help="Let simulated agents work through the bus, and report.")
@click.option("--agents", type=click.IntRange(3, 200), default=9, show_default=True, help="The number of agents.")
@click.option("--projects", type=click.IntRange(1, 50), default=4, show_default=True, help="The number of projects.")
@click.option(
    "--events", type=click.IntRange(1, 1_000_000), default=591, show_default=True, help="The number of events."
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed produces the same ledgers.")
@click.option("--live", is_flag=True, help="Go on until Ctrl-C, at a pace that can be followed; --events is ignored.")
@click.option(
    "--rate", type=click.FloatRange(0.05, 100), default=3, show_default=True, help="With --live: events per second."
)
@click.option(
    "--history",
    "history_days",
    callback=_parse_days,
    metavar="DAYS",
    help="Let the fleet have worked for the days before now, 1d to 60d; --events sets how much, 90 a day by default.",
)
@click.option("--owner", help="The owner of the projects (handle or e-mail); default: the first owner of the bus.")
@data_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    agents: int,
    projects: int,
    events: int,
    seed: int,
    live: bool,
    rate: float,
    history_days: int,
    owner: str | None,
    data: Path | None,
    as_json: bool,
) -> None:
    """Let a fleet of simulated agents work in new projects of the running bus, and report.

    Each agent has its own token and MCP connections; the activity mix is that of the original service. If no bus is
    running, a temporary one is started and removed. Exit code 1: a call failed, or the ledgers differ from the plan.
    """
    if live or history_days:
        is_default = ctx.get_parameter_source("events") is ParameterSource.DEFAULT
        _run_live(
            agents,
            projects,
            seed,
            rate=rate if live else None,
            history_days=history_days,
            events=_EVENTS_A_DAY * history_days if is_default else events,
            owner=owner,
            data=data,
            as_json=as_json,
        )
        return
    from cli.demo.plan import min_events

    minimum = min_events(agents, projects)
    if events < minimum:
        raise click.BadParameter(
            f"{agents} agents in {projects} projects need at least {minimum}.", ctx, param_hint="--events"
        )
    from cli.demo.orchestrator import run_demo
    from cli.report import format_report, format_summary_table, to_json

    result = run_demo(agents, projects, events, seed, owner=owner, data=data)
    title = f"LLM Bus demo: {result.calls} calls in {result.seconds:.1f} s, seed {seed}"
    lines = [format_report(result.total_report, title), "", format_summary_table(result.project_reports)]
    if not result.used_temporary_bus:
        lines += ["", f"Report of one project: llm-bus report {result.total_report.projects[0]}"]
    if result.differences:
        lines += ["", "Differences from the plan:", *result.differences]
    value = {
        "ok": not result.differences,
        "differences": result.differences,
        "seed": seed,
        "calls": result.calls,
        "seconds": round(result.seconds, 3),
        "total": to_json(result.total_report),
        "projects": [to_json(report) for report in result.project_reports],
    }
    emit(value, "\n".join(lines), as_json=as_json)
    ctx.exit(ExitCode.FAILED if result.differences else ExitCode.OK)


def _run_live(
    agents: int,
    projects: int,
    seed: int,
    *,
    rate: float | None,
    history_days: int,
    events: int,
    owner: str | None,
    data: Path | None,
    as_json: bool,
) -> None:
    from cli.demo.orchestrator import run_live_demo

    if history_days and events > _MAX_PAST_EVENTS:
        raise click.BadParameter(f"A history has at most {_MAX_PAST_EVENTS} events.", param_hint="--events")
    result = run_live_demo(
        agents, projects, seed, rate=rate, history_days=history_days, events=events, owner=owner, data=data
    )
    total = sum(result.events_by_type.values())
    text = f"LLM Bus demo: {total} events in {result.seconds:.0f} s. Projects: {', '.join(result.projects)}"
    value = {
        "ok": True,
        "seconds": round(result.seconds, 3),
        "events": result.events_by_type,
        "projects": result.projects,
    }
    emit(value, text, as_json=as_json)
