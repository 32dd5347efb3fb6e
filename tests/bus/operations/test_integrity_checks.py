"""Integrity checks: each violated invariant is reported, and nothing else."""

import pytest

from bus.billing import credits, metering
from bus.coordination import sequences
from bus.db import Connection, Database
from bus.operations import integrity_checks, project_purge
from bus.tenancy.projects import Project
from tests import servers
from tests.factories import Agent, make_agent, make_project


@pytest.fixture
def metered(conn: Connection, project: Project, root: Agent) -> Project:
    """A project with seeded and claimed sequences, completely metered."""
    metering.set_metering_enabled(conn, True)
    sequences.seed(conn, root.ctx, "adr", 41)
    for name in ("adr", "migration", "adr", "adr", "migration"):
        sequences.claim(conn, root.ctx, name)
    sequences.seed(conn, root.ctx, "migration", 9)
    sequences.claim(conn, root.ctx, "migration")
    metering.bill_batch(conn, project.id, trial_credits=100)
    return project


def _discrepancies(conn: Connection, project: Project) -> list[str]:
    return [
        f"{discrepancy.check}: {discrepancy.detail}"
        for discrepancy in (*integrity_checks.check_project(conn, project.id), *integrity_checks.check_accounts(conn))
    ]


def _break(conn: Connection, statement: str) -> None:
    """Run a statement without the triggers that guard the append-only tables."""
    with servers.as_owner(conn):
        for table in ("event", "credit_entry"):
            conn.raw.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER".encode())
        conn.raw.execute(statement.encode())
        for table in ("event", "credit_entry"):
            conn.raw.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER".encode())


def test_a_sound_project_has_no_discrepancies(conn: Connection, metered: Project) -> None:
    assert _discrepancies(conn, metered) == []


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM event WHERE seq = 3", "ledger: the clock is at 8; there are 7 events from 1 to 8"),
        ("UPDATE sequence SET current = 50 WHERE name = 'adr'", "sequence: adr is at 50, its ledger at 44"),
        (
            "UPDATE event SET payload = payload || '{\"number\": 90}' WHERE seq = 4",
            "sequence: claim to adr by event 4 moves from 42 to 90",
        ),
        (
            "UPDATE credit_account SET balance = balance - 1",
            "balance: the balance is 91, its entries add up to 92, the newest entry has 92",
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
            "usage: claim: 9 credits of usage, 6 in the entries",
        ),
        ("DELETE FROM credit_usage WHERE event_type = 'seed'", "usage: the usage adds up to 6 credits, 8 were billed"),
        (
            "UPDATE credit_usage SET participant_id = 77 WHERE event_type = 'claim'",
            "participant 77, claim: 6 credits of usage, 0 by the ledger",
        ),
    ],
)
def test_a_violated_invariant_is_reported(conn: Connection, metered: Project, statement: str, expected: str) -> None:
    _break(conn, statement)
    assert any(expected in text for text in _discrepancies(conn, metered))


def test_concurrent_writes_are_no_discrepancy(db: Database) -> None:
    """The checks read one snapshot."""
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


def test_a_project_that_is_being_purged_has_no_discrepancies(conn: Connection, metered: Project) -> None:
    project_purge.begin_purge(conn, metered.id, actor="cli")
    project_purge.purge_step(conn, metered.id, limit=2)
    assert _discrepancies(conn, metered) == []
    while not project_purge.purge_step(conn, metered.id):
        pass
    assert _discrepancies(conn, metered) == []
