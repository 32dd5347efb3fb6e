"""Import of a database of the original's shape."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bus.coordination import digest, ledger, sequences
from bus.ctx import Ctx
from bus.db import Connection, Database
from bus.errors import BusError
from bus.imports import former_ids, original, original_ledger
from bus.imports.original import ImportReport
from bus.imports.original_source import OriginalSource
from bus.operations import integrity_checks, project_purge
from bus.rules.token_format import fingerprint, is_legacy_token, is_well_formed_token
from bus.tenancy import invite_redemption, participants, projects, tokens
from cli.exit_codes import ExitCode
from tests import servers
from tests.bus.imports import original_database
from tests.concurrency import wait_until

_EVENTS, _AGENTS = 300, 5


@pytest.fixture(scope="module")
def source_url() -> Iterator[str]:
    with servers.empty_database() as url:
        original_database.create(url, events=_EVENTS, tokens=_AGENTS)
        yield url


@pytest.fixture(scope="module")
def imported_url(source_url: str) -> Iterator[str]:
    """A bus into which the original was imported, for tests that roll back."""
    with servers.cloned_database() as url:
        with closing(_open(url)) as database:
            _import(source_url, database)
        yield url


@pytest.fixture
def conn(imported_url: str) -> Iterator[Connection]:
    with closing(_open(imported_url)) as database, database.connection() as conn:
        with conn.raw.transaction(force_rollback=True):
            yield conn


def _open(url: str) -> Database:
    return Database(servers.application_url(url), pool_size=2)


def _import(source_url: str, database: Database, **options: Any) -> ImportReport:
    with psycopg.connect(source_url) as source:
        return original.import_all(OriginalSource(source), database.transaction, **options)


def _caller(conn: Connection, number: int) -> Ctx:
    ctx = tokens.find_caller(conn, fingerprint(original_database.token_text(number)))
    assert ctx is not None
    return ctx


_STATE_TABLES = (
    "event", "post", "delivery", "task", "task_blocker", "lease", "cursor", "sequence", "token", "invite", "owner",
    "identity", "participant", "participant_name", "participation", "project_import", "imported_id",
)  # fmt: skip


def _snapshot(database: Database) -> dict[str, Any]:
    with database.connection() as conn:
        return {
            table: conn.fetch_one(f"SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t")
            for table in _STATE_TABLES
        }


def test_a_token_of_the_original_has_its_own_form() -> None:
    text = original_database.token_text(1)
    assert is_legacy_token(text)
    assert not is_well_formed_token(text)
    for other in (text + "A", text[:-1], text[:-1] + "=", text[:-2] + "+A", text[:-1] + "B", "é" * 43, ""):
        assert not is_legacy_token(other)


def test_the_next_claim_is_the_old_one(conn: Connection) -> None:
    claim = sequences.claim(conn, _caller(conn, 2), "adr")
    assert (claim.number, claim.formatted) == (_EVENTS // 5 + 1, f"ADR-{_EVENTS // 5 + 1:04}")
    assert sequences.claim(conn, _caller(conn, 2), "migration").number == 42
    with pytest.raises(BusError, match="last number"):
        sequences.claim(conn, _caller(conn, 2), "last")


def test_the_ledger_has_no_gap_rises_in_time_and_keeps_the_old_ids(conn: Connection) -> None:
    page = ledger.query_events(conn, _caller(conn, 1), limit=1000)
    events = page.events[::-1]
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert [event.ts for event in events] == sorted(event.ts for event in events)
    imported = events[:_EVENTS]
    assert [event.payload["original_id"] for event in imported] == [3 * number for number in range(1, _EVENTS + 1)]
    assert imported[0].ts.isoformat() == "2026-01-01T00:00:01+00:00"
    # What follows: the seeds of two sequences that the ledger does not lead to, and the live lease.
    assert [event.type for event in events[_EVENTS:]] == ["seed", "seed", "lease"]
    ack = next(event for event in imported if event.type == "ack")
    assert imported[ack.payload["post_id"] - 1].payload["original_post_id"] == ack.payload["original_post_id"]
    posts = [event.payload for event in imported if event.type == "post"]
    assert {(post["to_lane"] is None, str(post["to_actor"]).startswith("ada/agent-")) for post in posts} == {
        (True, True),
        (False, False),
    }
    former = former_ids.find(conn, _caller(conn, 1).project_id, "30")
    assert [(known.kind, known.number) for known in former] == [("event", 10), ("post", 146), ("task", 3)]


def test_cursors_point_behind_what_was_read(conn: Connection) -> None:
    read = digest.read_digest(conn, _caller(conn, 2), limit=100, advance_cursor=False)
    assert read.since_event_id == _EVENTS - 5


def test_posts_keep_their_acks_and_wait_for_those_that_have_not_acked(conn: Connection) -> None:
    project_id = _caller(conn, 1).project_id
    posts = conn.fetch_one(
        "SELECT count(*), count(acked_at), count(*) FILTER (WHERE to_lane IS NOT NULL AND recipients = 0) FROM post"
        " WHERE project_id = %s",
        (project_id,),
    )
    assert posts == (60, 54, 0)
    unacked_lane_posts, waiting = conn.fetch_one(
        "SELECT count(*), count(*) FILTER (WHERE EXISTS (SELECT FROM delivery d WHERE d.project_id = o.project_id"
        " AND d.post_id = o.id AND d.acked_at IS NULL)) FROM post o"
        " WHERE o.project_id = %s AND o.to_lane = 'web' AND o.acked_at IS NULL",
        (project_id,),
    )
    assert unacked_lane_posts == waiting > 0


def test_tasks_leases_and_presence_are_in_force(conn: Connection) -> None:
    project_id = _caller(conn, 1).project_id
    assert conn.fetch_all(
        "SELECT id, title, status, owner, open_blockers FROM task WHERE project_id = %s ORDER BY id", (project_id,)
    ) == [
        (1, "Design", "done", "ada/agent-1", 0),
        (2, "Build", "blocked", "ada/agent-2", 1),
        (3, "Test", "open", None, 0),
    ]
    assert conn.fetch_all(
        "SELECT task_id, on_task_id, resolved_at IS NULL FROM task_blocker WHERE project_id = %s ORDER BY 1",
        (project_id,),
    ) == [(1, 2, False), (2, 3, True)]
    assert conn.fetch_all(
        "SELECT surface, actor, note, fence = id, ended_at FROM lease WHERE project_id = %s", (project_id,)
    ) == [("src/api", "ada/agent-2", "refactoring", True, None)]
    assert conn.fetch_all("SELECT lane, status FROM presence WHERE project_id = %s", (project_id,)) == [
        ("api", "on it")
    ]


def test_owners_keep_handle_operator_flag_and_accounts(conn: Connection) -> None:
    assert conn.fetch_all("SELECT email, handle, operator FROM owner ORDER BY id") == [
        ("Ada@example.org", "ada", True),
        ("bob@example.org", "bob", False),
    ]
    assert conn.fetch_all("SELECT issuer, subject FROM identity ORDER BY 1") == [
        ("https://accounts.google.com", "g-1"),
        ("https://github.com", "4711"),
    ]


def test_names_that_differ_by_case_alone_and_deleted_participants_are_kept_apart(conn: Connection) -> None:
    labels = conn.fetch_all(
        "SELECT pt.label, pt.removed_at IS NOT NULL FROM participant pt JOIN owner o ON o.id = pt.owner_id"
        " WHERE o.handle = 'bob' ORDER BY pt.label"
    )
    assert labels == [("", False), ("Solo-2", False), ("ghost", True), ("solo", False)]
    project = projects.get_by_name(conn, "bob/Side")
    events = conn.fetch_all(
        "SELECT e.type, e.actor, e.payload ->> 'original_id', bus_participation_name(e.participation_id) FROM event e"
        " WHERE e.project_id = %s ORDER BY e.seq",
        (project.id,),
    )
    # By time: the late commit first. The post that had no event has one.
    assert [(event_type, original_id) for event_type, _, original_id, _ in events] == [
        ("register", "3000003"), ("claim", "3000001"), ("claim", "3000002"), ("post", None), ("post", None),
    ]  # fmt: skip
    assert {(actor, name) for _, actor, _, name in events} == {("bob/ghost", "bob/ghost")}
    lanes = conn.fetch_all("SELECT to_lane FROM post WHERE project_id = %s ORDER BY id", (project.id,))
    assert lanes == [("api",), ("removed",)]
    conn.enter_all_projects()
    with pytest.raises(BusError, match="not handed out again"):
        participants.create(conn, project.owner_id, "ghost", actor="bob")


def test_the_nightly_check_finds_no_difference(imported_url: str) -> None:
    with closing(_open(imported_url)) as database:
        assert integrity_checks.check_all(database) == []


def test_revoked_and_foreign_tokens_stay_out(conn: Connection) -> None:
    (listed,) = tokens.list_tokens(conn, _caller(conn, _AGENTS).participation_id)
    assert (listed.state, listed.legacy, listed.label) == ("revoked", True, "laptop")
    assert listed.hint.startswith("SHA-256 ")
    assert tokens.find_caller(conn, fingerprint(original_database.token_text(_AGENTS + 1))) is None


def test_open_codes_are_redeemed(conn: Connection) -> None:
    issued = invite_redemption.redeem(conn, "join-me-please", name="newbie")
    assert (issued.project, issued.created) == ("Apollo", True)
    with pytest.raises(BusError):
        invite_redemption.redeem(conn, "used-up", name="late")


def test_imported_events_are_never_billed(conn: Connection) -> None:
    assert conn.fetch_all(
        "SELECT DISTINCT m.metered_seq = c.last_seq, m.started_seq = c.last_seq FROM meter_mark m"
        " JOIN project_clock c USING (project_id)"
    ) == [(True, True)]


def test_an_interrupted_import_goes_on_and_a_repeated_one_changes_nothing(
    source_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(original_ledger, "BATCH_SIZE", 40)

    def interrupt(_: str, done: int, __: int) -> None:
        if done >= 120:
            raise KeyboardInterrupt

    with closing(_open(database_url)) as database:
        with pytest.raises(KeyboardInterrupt):
            _import(source_url, database, progress=interrupt)
        with database.connection() as conn:
            project_id, archived_at = conn.fetch_one("SELECT id, archived_at FROM project WHERE name = 'Apollo'")
            assert archived_at is not None
            assert conn.fetch_one("SELECT count(*) FROM event WHERE project_id = %s", (project_id,)) == (120,)
            assert conn.fetch_one("SELECT count(*) FROM token") == (0,)
        report = _import(source_url, database)
        assert [project.state for project in report.projects] == ["resumed", "imported"]
        first = _snapshot(database)
        assert [project.state for project in _import(source_url, database).projects] == ["unchanged", "unchanged"]
        assert _snapshot(database) == first


def test_an_original_that_changed_after_an_interruption_is_refused(
    empty_database_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(original_ledger, "BATCH_SIZE", 20)
    original_database.create(empty_database_url, events=60, tokens=2)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with closing(_open(database_url)) as database:
        with pytest.raises(KeyboardInterrupt):
            _import(empty_database_url, database, progress=interrupt)
        with psycopg.connect(empty_database_url) as source:
            source.execute("UPDATE events SET ts = '2025-01-01' WHERE id = 90")
        with pytest.raises(BusError, match="has changed since the import of Apollo was interrupted"):
            _import(empty_database_url, database)
        with database.connection() as conn:
            assert conn.fetch_one("SELECT count(*) FROM token") == (0,)


def test_a_dry_run_reports_and_changes_nothing(source_url: str, database_url: str) -> None:
    from cli.import_original import run_import

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", servers.application_url(database_url))
        patch.delenv("REDIS_URL", raising=False)
        report = run_import(source_url, None, dry_run=True, progress=lambda *_: None)
    counts = {(finding.project, finding.problem.partition(";")[0]): finding.count for finding in report.findings}
    assert counts["bob/Side", "the same number was claimed more than once"] == 1
    assert counts["bob/Side", "committed out of the order of their ids"] == 1
    assert counts["ada/Apollo", "a task that is done and blocked is done"] == 1
    assert counts["ada/Apollo", "a sequence at its last number, from which nothing can be claimed"] == 1
    assert ("", "credits are not imported") in counts
    with closing(_open(database_url)) as database:
        assert {table: count for table, (count, _) in _snapshot(database).items()} == dict.fromkeys(_STATE_TABLES, 0)


def test_an_owner_and_a_project_that_exist_are_kept(source_url: str, database_url: str) -> None:
    from bus.tenancy import owners, participations

    with closing(_open(database_url)) as database:
        with database.transaction() as conn:
            ada = owners.add(conn, "ada@example.org", handle="ada-l", actor="cli")
            owners.add(conn, "other@example.org", handle="bob", actor="cli")
            existing = projects.add(conn, ada.id, "apollo", actor="cli")
            participations.join(conn, existing.id, "agent-3", actor="cli")
        _import(source_url, database)
        with database.connection() as conn:
            names = conn.fetch_all(
                "SELECT o.handle, p.name FROM project p JOIN owner o ON o.id = p.owner_id ORDER BY p.id"
            )
            assert names == [("ada-l", "apollo"), ("ada-l", "apollo-2"), ("bob-2", "Side")]
            # An account of the original does not sign in as an owner that has only its address.
            assert conn.fetch_one("SELECT count(*) FROM identity WHERE owner_id = %s", (ada.id,)) == (0,)
            # The agent of the same name is the same agent.
            assert conn.fetch_one("SELECT count(*) FROM participant WHERE label LIKE 'agent-3%%'") == (1,)


def test_a_purge_removes_what_was_imported_and_a_new_import_brings_it_back(source_url: str, database_url: str) -> None:
    with closing(_open(database_url)) as database:
        _import(source_url, database)
        with database.transaction() as conn:
            project_id = projects.get_by_name(conn, "ada/Apollo").id
            assert project_purge.begin_purge(conn, project_id, actor="ada")
        done = False
        while not done:
            with database.transaction() as conn:
                done = project_purge.purge_step(conn, project_id)
        with database.connection() as conn:
            for table in ("project_import", "imported_id", "event"):
                assert conn.fetch_one(f"SELECT count(*) FROM {table} WHERE project_id = %s", (project_id,)) == (0,)
        report = _import(source_url, database)
        assert [project.state for project in report.projects] == ["imported", "unchanged"]


def test_another_database_is_refused_by_name(database_url: str) -> None:
    with psycopg.connect(database_url) as other, pytest.raises(BusError, match="not a database of the original"):
        OriginalSource(other)


def test_the_command_says_what_it_lacks(source_url: str, database_url: str) -> None:
    from tests.cli.test_commands import Cli

    cli = Cli(database_url)
    assert cli.run("import", "original").exit_code == ExitCode.USAGE
    away = cli.run("import", "original", ORIGINAL_DATABASE_URL="postgresql://bus@127.0.0.1:1/none")
    assert (away.exit_code, "cannot be reached" in away.stderr) == (ExitCode.UNAVAILABLE, True)
    assert "must start with postgresql://" in cli.run("import", "original", "mysql://x").stderr
    done = cli.run("import", "original", source_url)
    assert done.exit_code == 0
    assert "ada/Apollo  imported" in done.stdout
    assert "Every project agrees with the original" in done.stdout
    assert "ada/Apollo: 300 of 300 events" in done.stderr
    assert cli.json("import", "original", source_url)["projects"][0]["state"] == "unchanged"


@pytest.mark.exhaustive
def test_a_large_original_survives_kills(database_url: str, empty_database_url: str, tmp_path: Path) -> None:
    """100,000 events and 50 tokens; the import is killed three times, completed, and run once more."""
    original_database.create(empty_database_url, events=100_000, tokens=50)
    command = [sys.executable, "-m", "cli", "import", "original", "--json"]
    env = {
        **os.environ,
        "DATABASE_URL": servers.application_url(database_url),
        "ORIGINAL_DATABASE_URL": empty_database_url,
    }
    with closing(_open(database_url)) as database:

        def count_events() -> int:
            with database.connection() as conn:
                return int(conn.fetch_one("SELECT coalesce(sum(rows_read), 0) FROM project_import")[0])

        for _ in range(3):
            before = count_events()
            with (tmp_path / "log").open("wb") as log:
                process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
                wait_until(lambda target=before + 10_000: count_events() >= target, seconds=120)
                process.send_signal(signal.SIGKILL)
                process.wait()
        assert count_events() < 100_000
        subprocess.run(command, env=env, check=True, capture_output=True)
        first = _snapshot(database)
        assert first["event"][0] >= 100_000
        subprocess.run(command, env=env, check=True, capture_output=True)
        assert _snapshot(database) == first
        assert integrity_checks.check_all(database) == []
        with database.transaction() as conn:
            assert sequences.claim(conn, _caller(conn, 2), "adr").number == 20_001
