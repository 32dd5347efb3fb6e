"""`python -m tests.proof.fuzz`: generated calls, requests and bytes; exit code 1 at the first violation."""

import argparse
import sys

from tests import servers
from tests.proof.fuzz.judgement import Violation
from tests.proof.fuzz.run import Report, fuzz_sockets, fuzz_tools, fuzz_web


def main() -> int:
    """Run and print the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.fuzz", description=__doc__)
    parser.add_argument("--calls", type=int, default=50_000, help="tool calls")
    parser.add_argument("--requests", type=int, default=10_000, help="requests to the web")
    parser.add_argument("--connections", type=int, default=5_000, help="connections to each server")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = servers.Servers()
    report = Report()
    try:
        for fuzz, count in (
            (fuzz_tools, options.calls),
            (fuzz_web, options.requests),
            (fuzz_sockets, options.connections),
        ):
            if count:
                fuzz(report, count, options.seed)
    except Violation as violation:
        report.lines.append(f"VIOLATION: {violation}")
        return 1
    finally:
        started.stop()
        print("\n".join(report.lines), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
