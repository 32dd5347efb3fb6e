"""The nightly proof sees every loss that it is there to see, and nothing where there is none."""

import pytest

from bus.billing import credits, metering
from bus.coordination import long_poll, sequences
from bus.db import Connection, Database
from bus.operations import integrity_checks, jobs, project_purge, retention
from bus.tenancy.projects import Project
from tests.factories import Agent, make_agent, make_project


@pytest.fixture
def metered(conn: Connection, project: Project, root: Agent) -> Project:
    """A project with sequences that were seeded and claimed, all of it metered."""
    metering.set_metering_enabled(conn, True)
    sequences.seed(conn, root.ctx, "adr", 41)
    for name in ("adr", "migration", "adr", "adr", "migration"):
        sequences.claim(conn, root.ctx, name)
    sequences.seed(conn, root.ctx, "migration", 9)
    sequences.claim(conn, root.ctx, "migration")
    metering.bill_batch(conn, project.id, trial_credits=100)
    return project


def _found(conn: Connection, project: Project) -> list[str]:
    return [
        f"{one.check}: {one.detail}"
        for one in (*integrity_checks.check_project(conn, project.id), *integrity_checks.check_accounts(conn))
    ]


def _break(conn: Connection, statement: str) -> None:
    """Do what no code path can: write past the guards of the append-only tables."""
    for table in ("event", "credit_entry"):
        conn.raw.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER".encode())
    conn.raw.execute(statement.encode())
    for table in ("event", "credit_entry"):
        conn.raw.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER".encode())


def test_nothing_is_found_where_everything_holds(conn: Connection, metered: Project) -> None:
    assert _found(conn, metered) == []


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM event WHERE seq = 3", "ledger: the clock shows 8; there are 7 events from 1 to 8"),
        ("UPDATE sequence SET current = 50 WHERE name = 'adr'", "sequence: adr stands at 50, its ledger at 44"),
        (
            "UPDATE event SET payload = payload || '{\"number\": 90}' WHERE seq = 4",
            "sequence: claim to adr by event 4 moves from 42 to 90",
        ),
        (
            "UPDATE credit_account SET balance = balance - 1",
            "balance: the balance is 91, its entries add up to 92, the newest says 92",
        ),
        (
            "UPDATE credit_entry SET amount = -6 WHERE kind = 'usage'",
            "metering: events 1 to 8 cost 8 credits, 6 were billed",
        ),
        ("UPDATE meter_mark SET metered_seq = 6", "metering: events 1 to 6 cost 6 credits, 8 were billed"),
        (
            "INSERT INTO credit_entry (owner_id, kind, amount, balance, reference, project_id, first_seq, last_seq)"
            " SELECT owner_id, 'usage', -1, balance - 1, 'twice', project_id, 5, 8 FROM credit_entry"
            " WHERE kind = 'usage'",
            "metering: an event was billed twice",
        ),
        (
            "UPDATE credit_usage SET credits = 9 WHERE event_type = 'claim'",
            "usage: claim is 9 credits of usage, 6 in the entries",
        ),
        ("DELETE FROM credit_usage WHERE event_type = 'seed'", "usage: the usage adds up to 6 credits, 8 were billed"),
        (
            "UPDATE credit_usage SET participant_id = 77 WHERE event_type = 'claim'",
            "participant 77, claim: 6 credits of usage, 0 by the ledger",
        ),
    ],
)
def test_what_was_broken_is_found(conn: Connection, metered: Project, statement: str, said: str) -> None:
    _break(conn, statement)
    assert any(said in one for one in _found(conn, metered))


def test_the_proof_reads_one_moment(db: Database) -> None:
    """What is written while it reads is no difference."""
    with db.transaction() as conn:
        project = make_project(conn)
        ada = make_agent(conn, project)
        metering.set_metering_enabled(conn, True)
    with db.transaction() as conn:
        integrity_checks.begin_snapshot(conn)
        assert integrity_checks.check_accounts(conn) == []
        with db.transaction() as other:
            sequences.claim(other, ada.ctx, "adr")
        with db.transaction() as other:
            metering.bill_batch(other, project.id)
        assert integrity_checks.check_project(conn, project.id) == []
        assert credits.find_account(conn, project.owner_id) is None


def test_what_is_old_goes_and_what_is_not_stays(conn: Connection, project: Project, ada: Agent) -> None:
    sequences.claim(conn, ada.ctx, "adr", idempotency_key="old")
    conn.execute("UPDATE idempotency SET created_at = clock_timestamp() - interval '3 days'")
    sequences.claim(conn, ada.ctx, "adr", idempotency_key="new")
    long_poll.begin_wait(conn, ada.ctx, "lease", surface="a.py")
    long_poll.begin_wait(conn, ada.ctx, "lease", surface="b.py")
    conn.execute("UPDATE waiter SET alive_until = clock_timestamp() - interval '2 hours' WHERE surface = 'a.py'")
    quiet, busy, newest = (jobs.begin_run(conn, "x") for _ in range(3))
    jobs.finish_run(conn, quiet, "ok", {"ended": 0})
    jobs.finish_run(conn, busy, "ok", {"ended": 1})
    jobs.finish_run(conn, newest, "ok", {})
    conn.execute("UPDATE job_run SET started_at = clock_timestamp() - interval '2 days'")
    # A gateway may still write presence of a project that is gone.
    for table in (
        "presence (project_id, participation_id, last_seen) VALUES (999999, 1, now())",
        "cursor (project_id, participation_id, seq) VALUES (999999, 1, 1)",
    ):
        conn.raw.execute(f"INSERT INTO {table}".encode())
    gone = {kind: retention.prune_batch(conn, kind) for kind in retention.PRUNE_KINDS}
    assert gone == {
        "idempotency_keys": 1, "waiters": 1, "quiet_runs": 1, "runs": 0, "notices": 0, "lost_presence": 1,
        "lost_cursors": 1, "hours": 0, "days": 0, "sessions": 0, "sign_ups": 0, "login_links": 0,
        "gone_processes": 0, "samples": 0,
    }  # fmt: skip
    assert conn.fetch_all("SELECT key FROM idempotency") == [("new",)]
    assert [run.id for run in jobs.list_runs(conn, name="x")] == [newest, busy]
    assert {kind: retention.prune_batch(conn, kind) for kind in retention.PRUNE_KINDS} == dict.fromkeys(
        retention.PRUNE_KINDS, 0
    )


def test_runs_are_written_down_and_the_latest_of_each_is_found(conn: Connection) -> None:
    assert jobs.list_latest_runs(conn) == []
    assert jobs.find_last_run_age_seconds(conn, "a") is None
    for name, outcome in (("b", "ok"), ("a", "ok"), ("a", "failed"), ("b", "alarm")):
        jobs.finish_run(
            conn,
            jobs.begin_run(conn, name),
            outcome,
            {"n": 1, "none": 0},
            "what was wrong" if outcome != "ok" else None,
        )
    assert [(run.name, run.outcome, run.counts, run.error) for run in jobs.list_latest_runs(conn)] == [
        ("a", "failed", {"n": 1}, "what was wrong"),
        ("b", "alarm", {"n": 1}, "what was wrong"),
    ]
    age = jobs.find_last_run_age_seconds(conn, "a")
    assert age is not None
    assert 0 <= age < 60
    running = jobs.begin_run(conn, "a")
    (latest, *_) = jobs.list_latest_runs(conn)
    assert (latest.id, latest.outcome, latest.finished_at) == (running, "running", None)
    assert [run.id for run in jobs.list_runs(conn, before=running, limit=1)] == [running - 1]


def test_a_project_that_is_deleted_meanwhile_is_no_alarm(conn: Connection, metered: Project) -> None:
    project_purge.begin_purge(conn, metered.id, actor="cli")
    project_purge.purge_step(conn, metered.id, limit=2)
    assert _found(conn, metered) == []
    while not project_purge.purge_step(conn, metered.id):
        pass
    assert _found(conn, metered) == []
