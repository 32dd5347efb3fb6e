"""A share of `python -m tests.proof.fuzz`, which sends 50,000 calls; see docs/reference/reliability.md."""

from collections.abc import Iterator

import pytest

from bus.db import Database
from mcp_gateway.tools import all_tools
from tests.mcp_gateway.processes import running_gateways
from tests.proof.fuzz.changes import take_changes
from tests.proof.fuzz.judgement import Violation, check_status, check_text
from tests.proof.fuzz.run import Report, fuzz_sockets, fuzz_tools, fuzz_web, prepared_database
from tests.proof.fuzz.tool_calls import ToolFuzzer
from tests.proof.fuzz.web_requests import WebFuzzer


@pytest.fixture(scope="module")
def prepared() -> Iterator[tuple[str, Database]]:
    with prepared_database() as url_and_database:
        yield url_and_database


def test_generated_tool_calls_get_the_documented_answers(prepared: tuple[str, Database]) -> None:
    url, database = prepared
    with running_gateways(url) as (gateway,):
        fuzzer = ToolFuzzer(gateway.url, database)
        assert fuzzer.run(60) == 60
    assert sum(fuzzer.tally.counts.values()) == 60


def test_generated_requests_to_the_web_get_no_server_error(prepared: tuple[str, Database]) -> None:
    url, database = prepared
    assert WebFuzzer(url, database, reads_forms=False).run(30) == 30


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_generated_calls_requests_and_bytes_in_numbers() -> None:
    report = Report()
    fuzz_tools(report, 10_000)
    fuzz_web(report, 3_000)
    fuzz_sockets(report, 500)
    for tool in all_tools():
        assert any(kind.startswith(f"{tool} ") for kind in report.tool_answers), tool


def test_a_change_by_a_refused_call_is_noticed(prepared: tuple[str, Database]) -> None:
    _, database = prepared
    with database.connection() as conn:
        take_changes(conn)
        conn.execute("UPDATE price SET credits = credits WHERE event_type = 'claim'")
        assert take_changes(conn) == {"price"}
        with conn.raw.transaction(force_rollback=True):
            conn.execute("UPDATE price SET credits = credits WHERE event_type = 'claim'")
        assert take_changes(conn) == set()


def test_internals_and_server_errors_are_noticed() -> None:
    for text in (
        'Traceback (most recent call last):\n  File "x.py", line 3',
        'duplicate key value violates unique constraint "post_pkey"',
        "psycopg.errors.DataError: ...",
        "SELECT o.id FROM post o",
        "bus_claim(bigint) does not exist",
    ):
        with pytest.raises(Violation):
            check_text(text, "", "")
        check_text(text, text, "")
    for status in (500, 502):
        with pytest.raises(Violation):
            check_status(status, "")
    check_status(503, "")
