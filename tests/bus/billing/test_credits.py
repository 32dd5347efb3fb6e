"""Credits: one entry per reference, exact balances, one notification per crossing, and suspension at zero."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from bus.billing import credits, metering, prices
from bus.coordination import sequences
from bus.db import Connection, Database
from bus.errors import BusError, InvalidArgument, OwnerSuspended
from bus.notifications import outbox
from bus.operations import project_purge
from bus.tenancy import owners, projects
from bus.tenancy.projects import Project
from tests import servers
from tests.concurrency import run_concurrently, run_numbered_concurrently, successes
from tests.factories import Agent, make_agent, make_owner, make_project


def _account(conn: Connection, owner_id: int) -> credits.CreditAccount:
    account = credits.find_account(conn, owner_id)
    assert account is not None
    return account


def _use_up(conn: Connection, agent: Agent, calls: int = 5) -> None:
    metering.set_metering_enabled(conn, True)
    for _ in range(calls):
        sequences.claim(conn, agent.ctx, "adr")
    metering.bill_batch(conn, agent.ctx.project_id)


def test_an_account_opens_with_its_trial_once(conn: Connection) -> None:
    owner = make_owner(conn)
    assert credits.find_account(conn, owner.id) is None
    for _ in range(2):
        assert credits.get_or_create_account(conn, owner.id, trial_credits=500).balance == 500
    (entry,) = credits.list_entries(conn, owner.id)
    assert (entry.kind, entry.amount, entry.balance, entry.reference) == ("trial", 500, 500, "trial")


def test_a_repeated_reference_adds_one_entry(conn: Connection) -> None:
    owner = make_owner(conn)
    first = credits.add_credits(conn, owner.id, 100, reference="pay 1", actor="cli")
    assert credits.add_credits(conn, owner.id, 100, reference="pay 1", actor="cli") == first
    assert _account(conn, owner.id).balance == 100
    with pytest.raises(BusError, match="was used for top_up of 100 credits") as refused:
        credits.add_credits(conn, owner.id, 90, reference="pay 1", actor="cli")
    assert refused.value.code == "conflict"
    with pytest.raises(BusError, match="use a new one"):
        credits.add_credits(conn, owner.id, 100, reference="pay 1", kind="grant", actor="cli")
    # References are unique per owner.
    credits.add_credits(conn, make_owner(conn).id, 1, reference="pay 1", actor="cli")
    assert _account(conn, owner.id).balance == 100


@pytest.mark.parametrize("amount", [0, -5, 10**12 + 1])
def test_an_amount_out_of_range_is_refused(conn: Connection, amount: int) -> None:
    owner = make_owner(conn)
    with pytest.raises(InvalidArgument, match="amount"):
        credits.add_credits(conn, owner.id, amount, reference="x", actor="cli")
    assert credits.find_account(conn, owner.id) is None


def test_concurrent_requests_for_one_payment_add_one_entry(db: Database) -> None:
    with db.transaction() as conn:
        owner = make_owner(conn)
    entries = run_numbered_concurrently(
        db, 20, lambda conn, _: credits.add_credits(conn, owner.id, 100, reference="pay 1", actor="cli")
    )
    assert len({entry.id for entry in entries}) == 1
    outcomes = run_numbered_concurrently(
        db, 20, lambda conn, number: credits.add_credits(conn, owner.id, 1, reference=f"pay 2.{number}", actor="cli")
    )
    assert successes(outcomes) == outcomes
    with db.transaction() as conn:
        assert _account(conn, owner.id).balance == 120
        entries = credits.list_entries(conn, owner.id)
        running = 0
        for entry in reversed(entries):
            running += entry.amount
            assert entry.balance == running


def test_entries_are_append_only(conn: Connection) -> None:
    owner = make_owner(conn)
    credits.add_credits(conn, owner.id, 100, reference="pay 1", actor="cli")
    for statement in ("UPDATE credit_entry SET amount = 1", "DELETE FROM credit_entry"):
        with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"), servers.as_owner(conn):
            conn.raw.execute(statement)


def test_the_owner_is_notified_each_time_the_balance_falls_below_the_threshold(
    conn: Connection, project: Project, ada: Agent
) -> None:
    outbox.add_webhook(conn, project.owner_id, "https://example.org/x", actor="cli")
    credits.add_credits(conn, project.owner_id, 12, reference="1", actor="cli")
    credits.set_low_balance(conn, project.owner_id, 10, actor="cli")

    def channels() -> list[str]:
        entries = outbox.list_log_entries(conn, project.owner_id)
        return [entry.channel for entry in entries if entry.kind == "low_balance"]

    _use_up(conn, ada, 2)
    assert channels() == []
    _use_up(conn, ada, 1)
    assert sorted(channels()) == ["email", "webhook"]
    _use_up(conn, ada, 2)
    assert len(channels()) == 2
    credits.add_credits(conn, project.owner_id, 5, reference="2", actor="cli")
    _use_up(conn, ada, 3)
    assert len(channels()) == 4


def test_a_suspension_follows_the_grace_period_and_credits_lift_it_at_once(
    conn: Connection, project: Project, ada: Agent
) -> None:
    credits.add_credits(conn, project.owner_id, 5, reference="1", actor="cli")
    _use_up(conn, ada, 5)
    assert _account(conn, project.owner_id).delinquent_at is not None
    # Nothing happens up to the last seconds of the hour.
    conn.execute("UPDATE credit_account SET delinquent_at = clock_timestamp() - interval '59 minutes 30 seconds'")
    assert credits.list_delinquent_owners(conn, 1) == []
    assert not credits.suspend_delinquent_owner(conn, project.owner_id, 1)
    sequences.claim(conn, ada.ctx, "adr")
    conn.execute("UPDATE credit_account SET delinquent_at = clock_timestamp() - interval '2 hours'")
    assert credits.list_delinquent_owners(conn, 1) == [project.owner_id]
    assert credits.suspend_delinquent_owner(conn, project.owner_id, 1)
    assert not credits.suspend_delinquent_owner(conn, project.owner_id, 1)
    with pytest.raises(OwnerSuspended), conn.raw.transaction():
        sequences.claim(conn, ada.ctx, "adr")
    assert {entry.kind for entry in outbox.list_log_entries(conn, project.owner_id)} >= {"suspended", "delinquent"}
    credits.add_credits(conn, project.owner_id, 1, reference="2", actor="cli")
    assert sequences.claim(conn, ada.ctx, "adr").number == 7


def test_credits_do_not_lift_an_operators_suspension(conn: Connection, project: Project, ada: Agent) -> None:
    owners.suspend(conn, project.owner_id, reason="abuse", actor="operator")
    credits.add_credits(conn, project.owner_id, 100, reference="1", actor="cli")
    with pytest.raises(OwnerSuspended), conn.raw.transaction():
        sequences.claim(conn, ada.ctx, "adr")


def test_an_operators_suspension_replaces_one_for_credits(conn: Connection, project: Project, ada: Agent) -> None:
    _use_up(conn, ada, 2)
    conn.execute("UPDATE credit_account SET delinquent_at = clock_timestamp() - interval '9 hours'")
    assert credits.suspend_delinquent_owner(conn, project.owner_id, 1)
    assert owners.suspend(conn, project.owner_id, reason="abuse", actor="operator")
    assert not owners.suspend(conn, project.owner_id, reason=owners.CREDITS_EXHAUSTED, actor="clock")
    credits.add_credits(conn, project.owner_id, 100, reference="1", actor="cli")
    with pytest.raises(OwnerSuspended), conn.raw.transaction():
        sequences.claim(conn, ada.ctx, "adr")


def test_a_comped_owner_is_metered_and_never_suspended(conn: Connection, project: Project, ada: Agent) -> None:
    _use_up(conn, ada, 3)
    assert _account(conn, project.owner_id).delinquent_at is not None
    conn.execute("UPDATE credit_account SET delinquent_at = clock_timestamp() - interval '9 hours'")
    credits.suspend_delinquent_owner(conn, project.owner_id, 1)
    account = credits.set_plan(conn, project.owner_id, "comped", actor="cli")
    assert (account.plan, account.balance, account.delinquent_at) == ("comped", -3, None)
    sequences.claim(conn, ada.ctx, "adr")
    _use_up(conn, ada, 2)
    assert _account(conn, project.owner_id).balance == -6
    assert credits.list_delinquent_owners(conn, 0) == []
    # On a paying plan the negative balance counts again.
    assert credits.set_plan(conn, project.owner_id, "free", actor="cli").delinquent_at is not None


def test_a_payment_concurrent_with_a_suspension_leaves_the_owner_active(db: Database) -> None:
    for number in range(15):
        with db.transaction() as conn:
            project = make_project(conn)
            ada = make_agent(conn, project)
            _use_up(conn, ada, 2)
            conn.execute(
                "UPDATE credit_account SET delinquent_at = clock_timestamp() - interval '2 hours' WHERE owner_id = %s",
                (project.owner_id,),
            )
        outcomes = run_concurrently(
            db,
            lambda conn, owner=project.owner_id: credits.suspend_delinquent_owner(conn, owner, 1),
            lambda conn, owner=project.owner_id, ref=str(number): credits.add_credits(
                conn, owner, 50, reference=ref, actor="cli"
            ),
            lambda conn, owner=project.owner_id: credits.suspend_delinquent_owner(conn, owner, 1),
        )
        assert successes(outcomes) == outcomes
        with db.connection() as conn:
            sequences.claim(conn, ada.ctx, "adr")


def test_a_price_applies_from_its_time_on(conn: Connection, project: Project, ada: Agent) -> None:
    metering.set_metering_enabled(conn, True)
    sequences.claim(conn, ada.ctx, "adr")
    prices.set_price(conn, "claim", 10, actor="cli")
    # Times of events are whole milliseconds: an event of the same millisecond has the price before.
    conn.execute("SELECT pg_sleep(0.002)")
    sequences.claim(conn, ada.ctx, "adr")
    later = datetime.now(UTC) + timedelta(hours=1)
    prices.set_price(conn, "claim", 100, effective_from=later, actor="cli")
    sequences.claim(conn, ada.ctx, "adr")
    assert metering.bill_batch(conn, project.id).credits == 1 + 10 + 10
    assert [
        (price.credits, price.effective_from == later)
        for price in prices.list_prices(conn)
        if price.event_type == "claim"
    ] == [
        (10, False),
        (100, True),
    ]
    with pytest.raises(InvalidArgument, match="now or in the future"):
        prices.set_price(conn, "claim", 1, effective_from=datetime.now(UTC) - timedelta(hours=1), actor="cli")
    with pytest.raises(InvalidArgument, match="must be one of"):
        prices.set_price(conn, "nonsense", 1, actor="cli")


@pytest.mark.parametrize("enabled", [False, True])
def test_an_owner_without_usage_is_not_delinquent(conn: Connection, enabled: bool) -> None:
    owner = make_owner(conn)
    metering.set_metering_enabled(conn, enabled)
    assert credits.set_plan(conn, owner.id, "team", actor="cli").delinquent_at is None
    credits.set_low_balance(conn, owner.id, 5, actor="cli")
    assert credits.set_plan(conn, owner.id, "free", actor="cli").delinquent_at is None
    assert outbox.list_log_entries(conn, owner.id) == []


def test_no_account_becomes_delinquent_while_metering_is_off(conn: Connection, project: Project, ada: Agent) -> None:
    """Otherwise switching metering on again would suspend owners without a grace period."""
    _use_up(conn, ada)
    metering.set_metering_enabled(conn, False)
    for plan in ("comped", "free"):
        assert credits.set_plan(conn, project.owner_id, plan, actor="cli").delinquent_at is None
    credits.add_credits(conn, project.owner_id, 1, reference="pay 1", actor="cli")
    assert _account(conn, project.owner_id).delinquent_at is None


@pytest.mark.parametrize("first", ["paid", "plan", "low_balance", "purge"])
def test_the_trial_is_granted_however_the_account_was_opened(
    conn: Connection, project: Project, ada: Agent, first: str
) -> None:
    metering.set_metering_enabled(conn, True)
    if first == "paid":
        credits.add_credits(conn, project.owner_id, 50, reference="pay 1", actor="cli")
    elif first == "plan":
        credits.set_plan(conn, project.owner_id, "team", actor="cli")
    elif first == "low_balance":
        credits.set_low_balance(conn, project.owner_id, 5, actor="cli")
    else:
        doomed = projects.add(conn, project.owner_id, "doomed", actor="cli")
        sequences.claim(conn, make_agent(conn, doomed).ctx, "adr")
        project_purge.begin_purge(conn, doomed.id, actor="cli")
    for number in range(1, 4):
        sequences.claim(conn, ada.ctx, "adr")
        metering.bill_batch(conn, project.id, trial_credits=1000)
        account = _account(conn, project.owner_id)
        assert account.balance == 1000 - number + {"paid": 50, "purge": -1}.get(first, 0)
        assert account.delinquent_at is None
