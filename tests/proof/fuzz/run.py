"""A whole run: a gateway process with the change log, the web in this process and behind its server."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from bus.db import Database
from tests import servers
from tests.factories import make_agent, make_project
from tests.mcp_gateway.processes import running_gateways
from tests.mcp_gateway.raw_http import build_tool_call
from tests.proof.fuzz.changes import install_change_log
from tests.proof.fuzz.judgement import Tally, Violation, resident_megabytes
from tests.proof.fuzz.raw_bytes import RawFuzzer
from tests.proof.fuzz.tool_calls import ToolFuzzer
from tests.proof.fuzz.web_requests import WebFuzzer
from tests.webapp.live_server import running_live_server

# Caches fill during the first calls. What is left per call afterwards would be a leak of 40 MB in 50,000 calls.
_WARM_UP_CALLS = 5_000
_CALLS_PER_LINE = 1_000
_MAX_GROWTH_MEGABYTES = 40.0


@dataclass
class Report:
    """What was sent and answered; `tool_answers` by tool and code."""

    lines: list[str] = field(default_factory=list)
    tool_answers: Counter[str] = field(default_factory=Counter)

    def add(self, what: str, count: int, started: float, tally: Tally) -> None:
        kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(tally.counts.items()))
        self.lines.append(f"{count} {what} in {time.monotonic() - started:.0f} s: {kinds}")


@contextmanager
def prepared_database() -> Iterator[tuple[str, Database]]:
    """A migrated database with the change log."""
    with servers.cloned_database() as url, closing(Database(url, pool_size=4)) as database:
        install_change_log(database)
        yield url, database


def fuzz_tools(report: Report, calls: int, first_seed: int = 0) -> None:
    """Call every tool of a gateway process, and look at its memory."""
    with prepared_database() as (url, database), running_gateways(url) as (gateway,):
        fuzzer = ToolFuzzer(gateway.url, database)
        memory: list[tuple[int, float]] = []

        def look(sent: int) -> None:
            memory.append((sent, resident_megabytes(gateway.popen.pid)))
            if sent % _CALLS_PER_LINE == 0:
                print(f"{sent} calls, {memory[-1][1]:.0f} MB: {dict(_by_code(fuzzer.tally).counts)}", flush=True)

        started = time.monotonic()
        sent = fuzzer.run(calls, first_seed, look)
        report.add("tool calls", sent, started, _by_code(fuzzer.tally))
        report.tool_answers.update(fuzzer.tally.counts)
        warm = next((size for count, size in memory if count >= _WARM_UP_CALLS), memory[-1][1])
        report.lines.append(
            f"memory of the gateway: {warm:.0f} MB after the warm-up, {memory[-1][1]:.0f} MB at the end"
        )
        if memory[-1][1] - warm > _MAX_GROWTH_MEGABYTES:
            raise Violation(f"the memory of the gateway grows: {memory}")


def fuzz_web(report: Report, requests: int, first_seed: int = 0) -> None:
    """Request every route of the web."""
    with prepared_database() as (url, database):
        fuzzer = WebFuzzer(url, database)
        started = time.monotonic()
        report.add("requests to the web", fuzzer.run(requests, first_seed), started, fuzzer.tally)


def fuzz_sockets(report: Report, connections: int, first_seed: int = 0) -> None:
    """Send damaged bytes to the gateway and to the web."""
    with servers.cloned_database() as url, closing(Database(url, pool_size=2)) as database:
        with database.transaction() as conn:
            token = make_agent(conn, make_project(conn), "alice").token
        probe = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        calls = [
            build_tool_call(token, version, "claim", sequence="adr") for version in ("2026-07-28", "2025-06-18", None)
        ]
        pages = [
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"POST /join HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: 6\r\n\r\ncode=x",
            b"POST /join HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ]
        with running_gateways(url) as (gateway,), running_live_server(url) as web_url:
            for what, address, requests in (
                ("connections to the gateway", gateway.url, [*calls, probe]),
                ("connections to the web", web_url, [*pages, probe]),
            ):
                fuzzer = RawFuzzer(address, requests, probe)
                started = time.monotonic()
                report.add(what, fuzzer.run(connections, first_seed), started, fuzzer.tally)


def _by_code(tally: Tally) -> Tally:
    by_code = Tally()
    for kind, count in tally.counts.items():
        by_code.counts[kind.partition(" ")[2]] += count
    return by_code
