"""`llm-bus demo` against a gateway process, and with a temporary bus."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from bus.db import Database
from bus.tenancy import participations, projects
from cli.demo.plan import split_events
from cli.exit_codes import ExitCode
from tests import factories
from tests.assertions import assert_ledger_consistent
from tests.cli import bus_process
from tests.concurrency import wait_until
from tests.mcp_gateway import processes
from tests.servers import make_traversable_folder

_EVENTS = 160
_SMALL = ("--agents", "4", "--projects", "2", "--events", str(_EVENTS), "--json")


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url, pool_size=2)) as database:
        yield database


@pytest.fixture
def gateway(database_url: str) -> Iterator[str]:
    with processes.running_gateways(database_url) as (process,):
        yield process.url


def _demo(database_url: str, gateway: str, *words: str) -> dict[str, Any]:
    result = bus_process.run_command("demo", *_SMALL, *words, DATABASE_URL=database_url, MCP_URL=gateway)
    assert result.returncode == ExitCode.OK, result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def _ledgers(db: Database, report: dict[str, Any]) -> list[list[tuple[Any, ...]]]:
    with db.connection() as conn:
        return [
            [
                (seq, actor.partition("/")[2], event_type, payload)
                for seq, actor, event_type, payload in conn.fetch_all(
                    "SELECT seq, actor, type, payload FROM event WHERE project_id = %s ORDER BY seq",
                    (projects.get_by_name(conn, project["projects"][0]).id,),
                )
            ]
            for project in report["projects"]
        ]


def _assert_plan_is_met(db: Database, report: dict[str, Any]) -> None:
    budget, total = split_events(_EVENTS), report["total"]
    assert (report["ok"], total["agents"], total["events"], len(report["projects"])) == (True, 4, _EVENTS, 2)
    assert (total["handoffs"], total["acked"], total["anchored"]) == (
        budget.posts,
        budget.acked_posts,
        budget.anchored_posts,
    )
    assert total["claims"] == budget.claims
    assert total["collisions"] >= 1
    assert total["tasks_shipped"] >= 2
    assert total["ack_median_seconds"] > 0
    assert sum(len(ledger) for ledger in _ledgers(db, report)) == _EVENTS


@pytest.mark.exhaustive
def test_a_demo_is_reproducible_with_the_same_seed(db: Database, database_url: str, gateway: str) -> None:
    first, second = (_demo(database_url, gateway, "--seed", "7") for _ in range(2))
    _assert_plan_is_met(db, first)
    assert _ledgers(db, second) == _ledgers(db, first)
    assert not set(first["total"]["projects"]) & set(second["total"]["projects"])
    with db.connection() as conn:
        # The demo revokes all of its tokens.
        assert conn.fetch_one("SELECT count(*), count(revoked_at) FROM token") == (12, 12)


def test_a_demo_meets_its_plan_with_the_named_owner_and_leaves_existing_agents_alone(
    db: Database, database_url: str, gateway: str
) -> None:
    with db.transaction() as conn:
        factories.make_owner(conn, "other")
        owner = factories.make_owner(conn, "named")
        existing = projects.add(conn, owner.id, "demo-payments", actor="cli")
        old = projects.add(conn, owner.id, "old", actor="cli")
        participations.join(conn, existing.id, "demo-frontend-1", actor="cli")
        participations.join(conn, old.id, "demo-backend-1", actor="cli")
        conn.execute("UPDATE participant SET removed_at = now() WHERE label = 'demo-backend-1' RETURNING id")
    unknown = bus_process.run_command("demo", "--owner", "third", DATABASE_URL=database_url, MCP_URL=gateway)
    assert unknown.returncode == ExitCode.NOT_FOUND
    report = _demo(database_url, gateway, "--owner", "named")
    _assert_plan_is_met(db, report)
    assert report["total"]["projects"][0] == "named/demo-storefront-2"
    actors = {actor for ledger in _ledgers(db, report) for _, actor, _, _ in ledger}
    # A removed label is not reused; an existing agent of an earlier demo is.
    assert {"demo-backend-1-2", "demo-frontend-1"} <= actors
    with db.connection() as conn:
        live_tokens = conn.fetch_one(
            "SELECT count(*) FROM token t JOIN participation p ON p.id = t.participation_id"
            " WHERE p.project_id = %s AND t.revoked_at IS NULL",
            (existing.id,),
        )
        assert live_tokens == (1,)


def test_a_failed_call_ends_the_demo(db: Database, database_url: str, empty_database_url: str) -> None:
    # The gateway of another bus knows none of the tokens.
    with processes.running_gateways(empty_database_url) as (process,):
        result = bus_process.run_command("demo", *_SMALL, DATABASE_URL=database_url, MCP_URL=process.url)
    assert (result.returncode, result.stdout) == (ExitCode.FAILED, "")
    assert "llm-bus: The demo stopped at a call that failed" in result.stderr
    assert "Traceback" not in result.stderr
    with db.connection() as conn:
        assert conn.fetch_one("SELECT count(*) FROM token WHERE revoked_at IS NULL") == (0,)


def test_without_a_gateway_the_demo_creates_nothing(db: Database, database_url: str) -> None:
    result = bus_process.run_command("demo", DATABASE_URL=database_url, MCP_URL="http://127.0.0.1:1/mcp")
    assert result.returncode == ExitCode.UNAVAILABLE
    assert "MCP_URL" in result.stderr
    with db.connection() as conn:
        assert conn.fetch_one("SELECT count(*) FROM project") == (0,)


def test_too_few_events_are_a_usage_error(database_url: str) -> None:
    result = bus_process.run_command("demo", "--events", "100", DATABASE_URL=database_url)
    assert result.returncode == ExitCode.USAGE
    assert "at least 207" in result.stderr


@pytest.mark.exhaustive
def test_without_a_running_bus_a_temporary_one_is_started_and_removed() -> None:
    folder = make_traversable_folder()
    process = _start_demo_without_a_bus(folder)
    output, errors = process.communicate(timeout=180)
    assert process.returncode == ExitCode.OK, errors
    assert "starting a temporary bus" in errors
    assert "demo-platform" in output
    assert max(len(line) for line in output.splitlines()) <= 80
    _assert_nothing_left(folder)


@pytest.mark.slow
def test_an_interrupted_demo_removes_its_temporary_bus() -> None:
    folder = make_traversable_folder()
    process = _start_demo_without_a_bus(folder)
    assert process.stderr is not None
    # The progress bar appears when the bus is up and the agents are about to connect.
    while "at work" not in (line := process.stderr.readline()):
        assert line, process.communicate()
    # SIGTERM is handled like Ctrl-C.
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=150)
    assert (process.returncode, output) == (ExitCode.FAILED, "")
    # Python itself reports an event loop that was interrupted during its creation.
    assert "Traceback" not in errors.partition("Exception ignored in")[0]
    _assert_nothing_left(folder)


def _start_demo_without_a_bus(folder: Path) -> "subprocess.Popen[str]":
    env = bus_process.clean_environ({"LLM_BUS_DATA": str(folder / "none"), "TMPDIR": str(folder)})
    return subprocess.Popen(
        [bus_process.LLM_BUS_COMMAND, "demo", "--events", "207"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )


def _assert_nothing_left(folder: Path) -> None:
    assert [process for process in psutil.process_iter() if _uses_folder(process, str(folder))] == []
    assert list(folder.iterdir()) == []
    folder.rmdir()


def _uses_folder(process: psutil.Process, folder: str) -> bool:
    try:
        return process.cwd().startswith(folder) or any(folder in word for word in process.cmdline())
    except psutil.Error:
        return False


def test_a_live_demo_goes_on_until_it_is_stopped_and_finishes_what_has_begun(
    db: Database, database_url: str, gateway: str
) -> None:
    with db.transaction() as conn:
        factories.make_owner(conn, "named")
    process = bus_process.start_command(
        "demo", "--live", "--rate", "100", "--agents", "3", "--projects", "1", "--json",
        DATABASE_URL=database_url, MCP_URL=gateway,
    )  # fmt: skip

    def has_events() -> bool:
        with db.connection() as conn:
            return bool(conn.fetch_one("SELECT count(*) > 40 FROM event")[0])

    wait_until(has_events)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == ExitCode.OK, errors
    report = json.loads(output)
    with db.connection() as conn:
        counts: dict[str, int] = dict(conn.fetch_all("SELECT type, count(*) FROM event GROUP BY type"))
        assert report["events"] == counts
        # Scripts that had begun were finished.
        assert counts["lease"] == counts["release"]
        assert conn.fetch_one("SELECT count(*) FROM task WHERE status <> 'done'") == (0,)
        assert conn.fetch_one("SELECT count(*) FROM token WHERE revoked_at IS NULL") == (0,)


def test_a_history_is_written_into_the_past_and_agrees_with_the_ledger(
    db: Database, database_url: str, gateway: str
) -> None:
    with db.transaction() as conn:
        factories.make_owner(conn, "named")
    result = bus_process.run_command(
        "demo", "--history", "14d", "--events", "400", "--agents", "4", "--projects", "2", "--json",
        DATABASE_URL=database_url, MCP_URL=gateway,
    )  # fmt: skip
    assert result.returncode == ExitCode.OK, result.stderr
    report = json.loads(result.stdout)
    assert sum(report["events"].values()) >= 400
    with db.connection() as conn:
        assert dict(conn.fetch_all("SELECT type, count(*) FROM event GROUP BY type")) == report["events"]
        project_ids = [project_id for (project_id,) in conn.fetch_all("SELECT id FROM project ORDER BY id")]
        for project_id in project_ids:
            assert_ledger_consistent(conn, project_id)
            days, gap, recent = conn.fetch_one(
                "SELECT count(DISTINCT at::date), min(at - before), max(at) > clock_timestamp() - interval '1 hour'"
                " FROM (SELECT at, lag(at) OVER (ORDER BY seq) AS before FROM event WHERE project_id = %s) AS e",
                (project_id,),
            )
            assert days >= 8
            assert gap >= timedelta(0)
            assert recent
        for wrong in (
            "SELECT count(*) FROM post o JOIN event e ON e.project_id = o.project_id AND e.seq = o.id"
            " WHERE o.created_at <> e.at",
            "SELECT count(*) FROM post WHERE acked_at < created_at",
            "SELECT count(*) FROM lease WHERE ended_at NOT BETWEEN acquired_at AND expires_at",
            "SELECT count(*) FROM task WHERE updated_at < created_at",
            "SELECT count(*) FROM event WHERE at > clock_timestamp()",
            "SELECT count(*) FROM token WHERE revoked_at IS NULL",
        ):
            assert conn.fetch_one(wrong) == (0,), wrong


@pytest.mark.exhaustive
def test_the_team_goes_on_where_its_history_ends(db: Database, database_url: str, gateway: str) -> None:
    with db.transaction() as conn:
        factories.make_owner(conn, "named")
    process = bus_process.start_command(
        "demo", "--live", "--history", "2d", "--rate", "100", "--agents", "3", "--projects", "1", "--json",
        DATABASE_URL=database_url, MCP_URL=gateway,
    )  # fmt: skip

    def has_gone_on() -> bool:
        with db.connection() as conn:
            return bool(
                conn.fetch_one("SELECT count(*) > 30 FROM event WHERE at > (SELECT max(created_at) FROM token)")[0]
            )

    wait_until(has_gone_on)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == ExitCode.OK, errors


@pytest.mark.parametrize("days", ["0d", "61d", "x", "-1d", "1.5d", ""])
def test_a_wrong_length_of_a_history_is_a_usage_error(database_url: str, days: str) -> None:
    result = bus_process.run_command("demo", "--history", days, DATABASE_URL=database_url)
    assert result.returncode == ExitCode.USAGE
    assert "such as 14d" in result.stderr
