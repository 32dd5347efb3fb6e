"""`python -m bench`: start a separate bus, run the scenarios, print the table and write the report."""

import dataclasses
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click

from bench import client_baseline, environment, machine, plot, profile, report, targets
from bench.checks import IncorrectResponseError
from bench.scenario import FULL, QUICK, Effort, Harness, Result
from bench.scenarios import (
    answers,
    boards,
    claims,
    commit,
    context_size,
    fairness,
    growth,
    idle,
    layers,
    limit,
    mixed,
    pages,
    push,
    search,
    sessions,
    soak,
    solo,
    storage,
    tool_hooks,
    wake,
)

SCENARIOS: dict[str, Callable[[Harness], Result]] = {
    "limit": limit.run,
    "claim_spread": claims.run_spread,
    "mixed": mixed.run_mixed,
    "claim_hot": claims.run_hot,
    "claim500": claims.run_burst,
    "read": mixed.run_read,
    "refusals": claims.run_refusals,
    "context": context_size.run,
    "answers": answers.run,
    "layers": layers.run,
    "solo": solo.run,
    "idle": idle.run_idle,
    "push": push.run,
    "sessions": sessions.run,
    "fair": fairness.run,
    "growth": growth.run,
    "pages": pages.run,
    "boards": boards.run,
    "commit": commit.run,
    "tool-hooks": tool_hooks.run,
    "wake": wake.run,
    "old-snapshot": idle.run_old_snapshot,
    "storage": storage.run,
    "search": search.run,
    "soak": soak.run,
}
# Scenarios that cannot be shortened; only a full run includes them.
_SLOW_SCENARIOS = (
    "boards", "push", "sessions", "wake", "fair", "layers", "solo", "idle", "old-snapshot", "storage", "search", "soak",
)  # fmt: skip
_SCENARIO_HELP = "\b\n" + "\n".join(
    f"{name:<14}{(run.__doc__ or '').partition('.')[0]}" for name, run in SCENARIOS.items()
)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 140},
    help="Measure the gateway: start PostgreSQL and two gateways in a temporary folder, load them, check every response"
    f" against the database, print a table and write a report.\n\nScenarios:\n\n{_SCENARIO_HELP}",
)
@click.option("--quick", is_flag=True, help=f"About two and a half minutes; skips {', '.join(_SLOW_SCENARIOS)}.")
@click.option("--only", multiple=True, type=click.Choice(list(SCENARIOS)), help="Run this scenario; may be repeated.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The JSON report; the plot is written beside it.",
)
@click.option("--soak-calls", type=click.IntRange(1_000), help="The number of calls of `soak`, without a time limit.")
@click.option("--minutes", type=click.FloatRange(0.1), help="How long `soak` runs, whatever the number of its calls.")
@click.option("--profile", "with_profile", is_flag=True, help="Record flame graphs of one gateway with py-spy.")
def main(
    quick: bool,
    only: tuple[str, ...],
    out: Path | None,
    soak_calls: int | None,
    minutes: float | None,
    with_profile: bool,
) -> None:
    """Run the chosen scenarios and report the results."""
    effort = QUICK if quick else FULL
    if soak_calls is not None:
        effort = dataclasses.replace(effort, soak_calls=soak_calls, soak_seconds=float("inf"))
    if minutes is not None:
        effort = dataclasses.replace(effort, soak_calls=sys.maxsize, soak_seconds=60 * minutes)
    names = only or tuple(name for name in SCENARIOS if not quick or name not in _SLOW_SCENARIOS)
    path = out or Path("bench/reports") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{effort.name}.json"
    program = profile.find_py_spy() if with_profile else None
    if with_profile and program is None:
        raise click.ClickException(profile.INSTALL_HINT)
    # On SIGTERM too, stop the servers and remove their folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    results: dict[str, Result] = {}
    started_at = time.monotonic()
    try:
        with environment.start_environment() as running:
            machine_facts = machine.describe(running.database)
            baseline = client_baseline.measure_client_baseline(effort.seconds / 4)
            harness = Harness(running, effort)
            if program is not None:
                harness.record_profile = profile.make_profiler(program, running.gateway_pids[0], path.parent)
            for name in names:
                results[name] = _run_scenario(name, harness)
    except IncorrectResponseError as error:
        click.echo(f"\nWRONG: {error}", err=True)
        sys.exit(1)
    evaluated = targets.evaluate(harness.figures)
    click.echo(report.render_text(machine_facts, baseline, results, evaluated))
    report.write_json(path, effort.name, machine_facts, baseline, results, evaluated)
    click.echo(f"\n{time.monotonic() - started_at:.0f} s in all. Report: {path}")
    if "growth" in results:
        plot_path = path.with_suffix(".svg")
        plot.write_svg(plot_path, results["growth"].figures["p50"], _plot_title(effort))
        click.echo(f"Plot: {plot_path}")


def _run_scenario(name: str, harness: Harness) -> Result:
    started_at = time.monotonic()
    click.echo(f"{name} …", err=True, nl=False)
    result = SCENARIOS[name](harness)
    harness.figures[name] = result.figures
    click.echo(f" {time.monotonic() - started_at:.0f} s", err=True)
    return result


def _plot_title(effort: Effort) -> str:
    return f"p50 of each tool by length of history ({effort.samples} calls each)"


if __name__ == "__main__":
    main()
