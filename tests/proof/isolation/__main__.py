"""`python -m tests.proof.isolation`: random calls of two tenants, judged against the model; exit code 1 on a leak."""

import argparse
import sys
from collections import Counter
from contextlib import closing

from bus.db import Database
from tests import servers
from tests.proof.isolation.leaks import LEAKS, planted
from tests.proof.isolation.run import DEFAULT_STEPS, run

_RUNS_PER_DATABASE = 250


def main() -> int:
    """Run, and print how many steps were judged."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.isolation", description=__doc__)
    parser.add_argument("--runs", type=int, default=5_000, help="examples")
    parser.add_argument("--steps", type=int, default=DEFAULT_STEPS, help="most calls of an example")
    parser.add_argument("--leaks", action="store_true", help="plant each leak instead and see that it is found")
    options = parser.parse_args()
    started = servers.Servers()
    try:
        if options.leaks:
            return _find_leaks(options.runs, options.steps)
        return _run(options.runs, options.steps)
    finally:
        started.stop()


def _run(runs: int, steps: int) -> int:
    examples, calls, seconds = 0, 0, 0.0
    counts: Counter[str] = Counter()
    while examples < runs:
        # A new database for each block, since rolled back examples leave dead rows.
        with servers.cloned_database() as url, closing(Database(url, pool_size=2)) as database:
            summary = run(database, min(_RUNS_PER_DATABASE, runs - examples), steps=steps)
        examples, calls, seconds = examples + summary.examples, calls + summary.steps, seconds + summary.seconds
        counts.update(summary.counts)
        print(f"{examples} runs with {calls} calls in {seconds:.0f} s: no difference, no leak", flush=True)
    for name, count in sorted(counts.items()):
        print(f"  {name}: {count}")
    return 0


def _find_leaks(runs: int, steps: int) -> int:
    missed = []
    for name in LEAKS:
        with servers.cloned_database() as url, closing(Database(url, pool_size=2)) as database:
            with planted(name, database):
                try:
                    summary = run(database, runs, steps=steps, shrink=False)
                except Exception as error:  # noqa: BLE001 - any failure shows the leak
                    print(f"{name}: found: {str(error)[:160]!r}", flush=True)
                else:
                    missed.append(name)
                    print(f"{name}: MISSED in {summary.examples} runs", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
