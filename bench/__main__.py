"""`python -m bench`: start a bus of its own, run the scenarios, print the table and write the report."""

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
from bench.scenarios import boards, claims, context_size, fairness, growth, idle_and_soak, limit, mixed, pages, push

SCENARIOS: dict[str, Callable[[Harness], Result]] = {
    "limit": limit.run,
    "claim_spread": claims.run_spread,
    "mixed": mixed.run_mixed,
    "claim_hot": claims.run_hot,
    "claim500": claims.run_burst,
    "read": mixed.run_read,
    "context": context_size.run,
    "idle": idle_and_soak.run_idle,
    "push": push.run,
    "fair": fairness.run,
    "growth": growth.run,
    "pages": pages.run,
    "boards": boards.run,
    "old-snapshot": idle_and_soak.run_old_snapshot,
    "soak": idle_and_soak.run_soak,
}
# What takes its time by nature is left to the full run.
_SLOW_SCENARIOS = ("boards", "push", "fair", "idle", "old-snapshot", "soak")
_SCENARIO_HELP = "\b\n" + "\n".join(
    f"{name:<14}{(run.__doc__ or '').partition('.')[0]}" for name, run in SCENARIOS.items()
)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 140},
    help="Measure the gateway: start PostgreSQL and two gateways in a temporary folder, load them, check every answer"
    f" against the database, print a table and write a report.\n\nScenarios:\n\n{_SCENARIO_HELP}",
)
@click.option("--quick", is_flag=True, help=f"Some two and a half minutes; leaves out {', '.join(_SLOW_SCENARIOS)}.")
@click.option("--only", multiple=True, type=click.Choice(list(SCENARIOS)), help="Run this scenario; may be repeated.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="The JSON report; the plot goes beside it."
)
@click.option("--soak-calls", type=click.IntRange(1_000), help="How many calls `soak` makes, however long it takes.")
@click.option("--profile", "profiled", is_flag=True, help="Record flame graphs of one gateway with py-spy.")
def main(quick: bool, only: tuple[str, ...], out: Path | None, soak_calls: int | None, profiled: bool) -> None:
    effort = QUICK if quick else FULL
    if soak_calls is not None:
        effort = dataclasses.replace(effort, soak_calls=soak_calls, soak_seconds=float("inf"))
    chosen = only or tuple(name for name in SCENARIOS if not quick or name not in _SLOW_SCENARIOS)
    path = out or Path("bench/reports") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{effort.name}.json"
    program = profile.find_py_spy() if profiled else None
    if profiled and program is None:
        raise click.ClickException(profile.INSTALL_HINT)
    # Ended from outside, it still ends its servers and removes their folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    results: dict[str, Result] = {}
    started = time.monotonic()
    try:
        with environment.start_environment() as running:
            described = machine.describe(running.database)
            roof = client_baseline.measure_client_baseline(effort.seconds / 4)
            stage = Harness(running, effort)
            if program is not None:
                stage.record_profile = profile.make_profiler(program, running.gateway_pids[0], path.parent)
            for name in chosen:
                results[name] = _run_scenario(name, stage)
    except IncorrectResponseError as error:
        click.echo(f"\nWRONG: {error}", err=True)
        sys.exit(1)
    judged = targets.evaluate(stage.figures)
    click.echo(report.render_text(described, roof, results, judged))
    report.write_json(path, effort.name, described, roof, results, judged)
    click.echo(f"\n{time.monotonic() - started:.0f} s in all. Report: {path}")
    if "growth" in results:
        picture = path.with_suffix(".svg")
        plot.write_svg(picture, results["growth"].figures["p50"], _plot_title(effort))
        click.echo(f"Plot: {picture}")


def _run_scenario(name: str, harness: Harness) -> Result:
    started = time.monotonic()
    click.echo(f"{name} …", err=True, nl=False)
    result = SCENARIOS[name](harness)
    harness.figures[name] = result.figures
    click.echo(f" {time.monotonic() - started:.0f} s", err=True)
    return result


def _plot_title(effort: Effort) -> str:
    return f"p50 of every tool against the length of history ({effort.samples} calls each)"


if __name__ == "__main__":
    main()
