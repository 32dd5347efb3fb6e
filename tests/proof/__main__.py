"""`make proof`: run clients and faults against a real bus and judge the history; exit code 1 if a guarantee broke."""

import argparse
import sys
from dataclasses import asdict, replace

from tests.proof.run import Plan, Report, run

_MAX_SHOWN_VIOLATIONS = 30


def main() -> int:
    """Run and print the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description=__doc__)
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a twentieth of everything")
    parser.add_argument("--restarts", type=int, default=0, metavar="N", help="only end each process in order N times")
    options = parser.parse_args()
    plan = Plan(options.operations, seed=options.seed, restarts=options.restarts)
    if options.quick:
        plan = replace(plan, operations=5_000, gateway_kills=3, postgres_stops=1, redis_away_seconds=10.0)
    print(f"Plan: {asdict(plan)}", flush=True)
    report = run(plan)
    print(_format(report))
    return 1 if report.violations else 0


def _format(report: Report) -> str:
    lines = [
        f"{sum(report.outcomes.values())} operations in {report.seconds:.0f} s: {dict(report.outcomes)}",
        f"answered, by tool: {dict(report.tools.most_common())}",
        f"events in the ledgers: {report.events}",
        f"faults: {dict(report.faults)}; connections cut by the proxy: {report.proxy_cuts}; "
        f"connections refused: {report.refused_connections}",
        f"longest time in which no call was answered: {report.longest_pause_seconds:.1f} s",
        f"violations: {len(report.violations)}",
        *(f"  {violation.rule}: {violation.detail}" for violation in report.violations[:_MAX_SHOWN_VIOLATIONS]),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
