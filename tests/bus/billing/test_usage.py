"""Usage: agrees with the ledger and the entries by day and participant, and outlives purged projects."""

import random
import re
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import migrations
from bus.billing import credits, metering, prices, status, usage
from bus.coordination import sequences
from bus.db import Connection, Database, migrate
from bus.errors import BusError
from bus.operations import integrity_checks, project_purge
from bus.tenancy import audit, owners, participants, projects
from bus.tenancy.projects import Project
from tests.concurrency import BARRIER_TIMEOUT_SECONDS, run_jobs_concurrently
from tests.factories import Agent, make_agent, make_member, make_member_agent, make_owner, make_project

_ROWS = (
    "SELECT day, participant_id, event_type, events, credits FROM credit_usage WHERE project_id = %s ORDER BY 1, 2, 3"
)
# Prices each event on its own, unlike the meter.
_LEDGER = """
    SELECT (e.at AT TIME ZONE 'UTC')::date, p.participant_id, e.type, count(*), sum(c.credits)::bigint
    FROM event e JOIN participation p ON p.id = e.participation_id CROSS JOIN LATERAL (
        SELECT credits FROM price WHERE event_type = e.type AND effective_from <= e.at
        ORDER BY effective_from DESC LIMIT 1) AS c
    WHERE e.project_id = %s AND c.credits > 0 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""


def _today(conn: Connection) -> date:
    today: date = conn.fetch_one("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date")[0]
    return today


def _add_usage(
    conn: Connection, owner_id: int, project_id: int, days_ago: int, amount: int, participant_id: int = 0
) -> None:
    """Record usage of a past day; without a participant the trigger itemises it, as for the previous version."""
    conn.execute(
        "INSERT INTO credit_entry AS e (owner_id, at, kind, amount, balance, reference, project_id, detail, itemised)"
        " VALUES (%(owner)s, clock_timestamp() - %(back)s * interval '1 day', 'usage', -%(n)s::bigint, 0,"
        "  gen_random_uuid()::text, %(project)s, jsonb_build_object('claim', jsonb_build_array(%(n)s::bigint, %(n)s)),"
        "  %(participant)s > 0)",
        {"owner": owner_id, "back": days_ago, "n": amount, "project": project_id, "participant": participant_id},
    )
    if participant_id:
        conn.execute(
            "INSERT INTO credit_usage VALUES (%s, (clock_timestamp() AT TIME ZONE 'UTC')::date - %s::integer, %s, %s,"
            " 'claim', %s, %s)",
            (owner_id, days_ago, project_id, participant_id, amount, amount),
        )


def test_usage_equals_entries_and_ledger_beside_writers_meters_and_price_changes(db: Database) -> None:
    """Eight writers, three meters and one price setter start at one barrier."""
    with db.transaction() as conn:
        owner = make_owner(conn)
        metered_projects = [make_project(conn, owner=owner) for _ in range(2)]
        agents = [make_agent(conn, metered_projects[number % 2]) for number in range(8)]
        metering.set_metering_enabled(conn, True)
    barrier, stop = threading.Barrier(12), threading.Event()

    def write(number: int) -> None:
        randomness = random.Random(number)
        barrier.wait(BARRIER_TIMEOUT_SECONDS)
        for _ in range(30):
            try:
                with db.transaction() as conn:
                    sequences.claim(conn, agents[number].ctx, "adr")
                    if randomness.random() < 0.1:
                        raise LookupError
            except LookupError:
                continue

    def meter() -> None:
        barrier.wait(BARRIER_TIMEOUT_SECONDS)
        while not stop.is_set():
            for project in metered_projects:
                with db.transaction() as conn:
                    metering.bill_batch(conn, project.id, limit=7)

    def set_prices() -> None:
        barrier.wait(BARRIER_TIMEOUT_SECONDS)
        for price in (3, 0, 2, 5):
            with db.transaction() as conn:
                prices.set_price(conn, "claim", price, actor="cli")

    def work() -> None:
        outcomes = run_jobs_concurrently(*(lambda n=number: write(n) for number in range(8)), set_prices)
        stop.set()
        assert outcomes == [None] * 9

    outcomes = run_jobs_concurrently(work, meter, meter, meter)
    assert outcomes == [None] * 4
    with db.transaction() as conn:
        for project in metered_projects:
            while metering.bill_batch(conn, project.id).has_more:
                pass
    with db.transaction() as conn:
        rows = {project.id: conn.fetch_all(_ROWS, (project.id,)) for project in metered_projects}
        assert rows == {project.id: conn.fetch_all(_LEDGER, (project.id,)) for project in metered_projects}
        assert {participant for usage_rows in rows.values() for _, participant, *_ in usage_rows} <= {
            agent.ctx.participant_id for agent in agents
        }
        billed = sum(-entry.amount for entry in credits.list_entries(conn, owner.id, limit=1000))
        assert sum(row[4] for usage_rows in rows.values() for row in usage_rows) == billed > 0
        assert not any(integrity_checks.check_project(conn, project.id) for project in metered_projects)
        assert integrity_checks.check_accounts(conn) == []


def test_an_event_counts_on_its_day_at_the_price_of_its_time(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    def set_price(price: int) -> None:
        prices.set_price(conn, "claim", price, actor="cli")
        # Times of events are whole milliseconds: an event of the same millisecond has the price before.
        conn.execute("SELECT pg_sleep(0.002)")

    metering.set_metering_enabled(conn, True)
    today = _today(conn)
    sequences.claim(conn, ada.ctx, "adr")
    set_price(5)
    sequences.claim(conn, ada.ctx, "adr")
    sequences.claim(conn, bob.ctx, "adr")
    set_price(0)
    sequences.claim(conn, ada.ctx, "adr")
    sequences.seed(conn, ada.ctx, "rfc", 7)
    # Event times never decrease: from here on they are tomorrow's.
    conn.execute(
        "UPDATE project_clock SET last_at = (%s::date + 1)::timestamp AT TIME ZONE 'UTC' WHERE project_id = %s",
        (today, project.id),
    )
    sequences.seed(conn, bob.ctx, "migration", 8)
    for _ in range(3):
        metering.bill_batch(conn, project.id, limit=3)
    ada_id, bob_id = ada.ctx.participant_id, bob.ctx.participant_id
    assert conn.fetch_all(_ROWS, (project.id,)) == [
        # Free events are no usage.
        (today, ada_id, "claim", 2, 6),
        (today, ada_id, "seed", 1, 1),
        (today, bob_id, "claim", 1, 5),
        (today + timedelta(days=1), bob_id, "seed", 1, 1),
    ]
    assert conn.fetch_all(_ROWS, (project.id,)) == conn.fetch_all(_LEDGER, (project.id,))
    assert (integrity_checks.check_project(conn, project.id), integrity_checks.check_accounts(conn)) == ([], [])


def test_a_purge_bills_in_steps_beside_writers_and_usage_stays(db: Database) -> None:
    with db.transaction() as conn:
        project = make_project(conn, "apollo")
        agents = [make_agent(conn, project) for _ in range(4)]
        metering.set_metering_enabled(conn, True)
    for agent in agents:
        with db.transaction() as conn:
            for _ in range(10):
                sequences.claim(conn, agent.ctx, "adr")
    steps: list[int] = []
    # The purge could otherwise begin before a writer has written.
    all_have_written = threading.Barrier(len(agents) + 1)

    def write(agent: Agent) -> None:
        with db.transaction() as conn:
            sequences.claim(conn, agent.ctx, "adr")
        all_have_written.wait(BARRIER_TIMEOUT_SECONDS)
        # Bounded, because such small batches might never catch up.
        for _ in range(40):
            with db.transaction() as conn:
                sequences.claim(conn, agent.ctx, "adr")

    def delete() -> None:
        all_have_written.wait(BARRIER_TIMEOUT_SECONDS)
        begun = False
        while not begun:
            with db.transaction() as conn:
                before = len(credits.list_entries(conn, project.owner_id))
                begun = project_purge.begin_purge(conn, project.id, actor="ada", batch_size=6)
                steps.append(len(credits.list_entries(conn, project.owner_id)) - before)

    outcomes = run_jobs_concurrently(*(lambda a=agent: write(a) for agent in agents), delete)
    assert outcomes[-1] is None
    assert len(steps) > 5
    assert max(steps) <= 2
    done = False
    while not done:
        with db.transaction() as conn:
            done = project_purge.purge_step(conn, project.id, limit=50)
    with db.transaction() as conn:
        participants.remove(conn, project.owner_id, agents[0].ctx.participant_id, actor="ada")
        ((events,),) = conn.fetch_all("SELECT (detail ->> 'events')::bigint FROM audit WHERE action = 'project.purge'")
        week = usage.get_usage(conn, project.owner_id, 7)
        assert week.credits == week.event_count == events > 40
        assert [(share.id, share.name, share.is_removed) for share in week.projects] == [(project.id, "apollo", True)]
        assert sum(share.credits for share in week.participants) == events
        assert {share.name: share.is_removed for share in week.participants} == {
            agent.actor: agent is agents[0] for agent in agents
        }
        assert integrity_checks.check_accounts(conn) == []
        with pytest.raises(BusError, match="no such project"):
            project_purge.begin_purge(conn, project.id, actor="ada")


def test_a_period_adds_up_by_day_project_participant_and_type(conn: Connection, project: Project, ada: Agent) -> None:
    owner_id, ada_id = project.owner_id, ada.ctx.participant_id
    credits.add_credits(conn, owner_id, 1000, reference="1", actor="cli")
    others = [projects.add(conn, owner_id, f"p{number}", actor="cli") for number in range(24)]
    for number, other in enumerate(others):
        _add_usage(conn, owner_id, other.id, 2, number + 1, ada_id)
    _add_usage(conn, owner_id, project.id, 0, 40, ada_id)
    _add_usage(conn, owner_id, project.id, 6, 50)
    _add_usage(conn, owner_id, project.id, 7, 60)
    _add_usage(conn, owner_id, project.id, 91, 70)
    _add_usage(conn, make_project(conn).owner_id, project.id, 1, 999)
    conn.execute("UPDATE credit_account SET balance = 1000 - 520 WHERE owner_id = %s", (owner_id,))
    week, month = usage.get_usage(conn, owner_id, 7), usage.get_usage(conn, owner_id, 30)
    assert (week.credits, week.event_count, month.credits) == (390, 390, 450)
    assert [day.credits for day in week.days] == [50, 0, 0, 0, 300, 0, 40]
    assert [day.day for day in week.days] == [_today(conn) - timedelta(days=back) for back in range(6, -1, -1)]
    assert all(sum(day.credits_by_project) == day.credits for day in (*week.days, *month.days))
    assert (week.projects[0].name, week.projects[0].credits) == (project.name, 90)
    # The smallest five of 25 are combined.
    assert (len(week.projects), week.projects[-1].name, week.projects[-1].credits) == (21, "", 1 + 2 + 3 + 4 + 5)
    assert [(share.id, share.name, share.credits) for share in week.participants] == [
        (ada_id, ada.actor, 340),
        (0, None, 50),
    ]
    assert [(share.name, share.credits) for share in week.event_types] == [("claim", 390)]
    # Backwards from now: 1000 were added today, so earlier balances are negative.
    assert [day.balance for day in week.days] == [-180, -180, -180, -180, -480, -480, 480]
    assert usage.get_usage(conn, make_owner(conn).id, 90).credits == 0


def test_the_usage_of_members_has_their_names(conn: Connection, project: Project) -> None:
    member = make_member(conn, project, handle="bob")
    agent = make_member_agent(conn, project, member, "claude-1")
    _add_usage(conn, project.owner_id, project.id, 0, 40, agent.ctx.participant_id)
    (share,) = usage.get_usage(conn, project.owner_id, 7).participants
    assert (share.name, share.credits) == ("bob/claude-1", 40)
    assert usage.get_usage(conn, member.id, 7).participants == []


def test_a_forecast_takes_the_last_seven_whole_days(conn: Connection, project: Project) -> None:
    owner_id, today = project.owner_id, _today(conn)
    assert usage.forecast_balance(conn, owner_id, 100) is None
    _add_usage(conn, owner_id, project.id, 0, 500)
    # Today is not a whole day.
    assert usage.forecast_balance(conn, owner_id, 100) is None
    _add_usage(conn, owner_id, project.id, 2, 30)
    assert usage.forecast_balance(conn, owner_id, 100) == usage.BalanceForecast(2, 30, today, today + timedelta(days=6))
    _add_usage(conn, owner_id, project.id, 9, 1000)
    _add_usage(conn, owner_id, project.id, 7, 40)
    forecast = usage.forecast_balance(conn, owner_id, 100)
    assert forecast == usage.BalanceForecast(7, 70, today, today + timedelta(days=10))
    assert forecast.credits_per_day == 10
    assert usage.forecast_balance(conn, owner_id, 0) == usage.BalanceForecast(7, 70, today, None)


def test_usage_billed_by_the_previous_version_has_no_participant(database_url: str, db: Database) -> None:
    """The migration itemises earlier entries; the trigger itemises entries written during the deployment."""
    with db.transaction() as conn:
        project = make_project(conn)
    (before,) = re.findall(
        r'down_revision = "(\w+)"', next((Path(migrations.__file__).parent / "versions").glob("*_usage.py")).read_text()
    )
    migrate.downgrade(database_url, before)
    bill = (
        "INSERT INTO credit_entry (owner_id, at, kind, amount, balance, reference, project_id, detail) VALUES"
        ' (%s, %s, \'usage\', -4, 0, %s, %s, \'{"claim": [3, 3], "post": [1, 1], "register": [2, 0]}\') RETURNING 1'
    )
    day = datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC)
    with db.transaction() as conn:
        for number, at in enumerate((day, day, day + timedelta(seconds=1))):
            conn.execute(bill, (project.owner_id, at, str(number), project.id))
    migrate.migrate(database_url)
    with db.transaction() as conn:
        conn.execute(bill, (project.owner_id, day, "late", project.id))
        assert conn.fetch_all(_ROWS, (project.id,)) == [
            (date(2026, 3, 1), 0, "claim", 9, 9),
            (date(2026, 3, 1), 0, "post", 3, 3),
            (date(2026, 3, 2), 0, "claim", 3, 3),
            (date(2026, 3, 2), 0, "post", 1, 1),
        ]


def test_price_and_metering_changes_are_audited_without_an_owner(conn: Connection, project: Project) -> None:
    metering.set_metering_enabled(conn, True, actor="clock")
    prices.set_price(conn, "claim", 3, actor="operator")
    rows: list[Any] = conn.fetch_all(
        "SELECT actor, action, subject, detail FROM audit WHERE owner_id IS NULL ORDER BY id"
    )
    assert [row[:3] for row in rows] == [("clock", "metering.on", "metering"), ("operator", "credit.price", "claim")]
    assert rows[1][3]["credits"] == 3
    assert "credit.price" not in {entry.action for entry in audit.list_for_owner(conn, project.owner_id)}
    # An operator sees them among the entries of all owners.
    assert [
        (entry.owner_id, entry.owner) for entry in audit.list_for_operator(conn) if entry.action == "credit.price"
    ] == [(None, None)]


def test_the_billing_state_follows_balance_and_suspension(conn: Connection, project: Project, ada: Agent) -> None:
    owner_id = project.owner_id

    def state() -> str:
        return status.get_billing_status(conn, owner_id).state

    assert (state(), status.get_billing_flags(conn, owner_id)) == ("off", (False, False))
    metering.set_metering_enabled(conn, True)
    metering.record_terms(conn, grace_hours=5, trial_credits=100)
    assert status.get_terms(conn) == status.BillingTerms(True, 5, 100)
    assert (state(), status.get_billing_flags(conn, None)) == ("new", (True, True))
    credits.add_credits(conn, owner_id, 103, reference="1", actor="cli")
    assert state() == "good"
    for _ in range(4):
        sequences.claim(conn, ada.ctx, "adr")
    metering.bill_batch(conn, project.id)
    assert state() == "low"
    prices.set_price(conn, "claim", 200, actor="cli")
    sequences.claim(conn, ada.ctx, "adr")
    metering.bill_batch(conn, project.id)
    delinquent = status.get_billing_status(conn, owner_id)
    assert (delinquent.state, delinquent.suspended_at) == ("delinquent", None)
    assert delinquent.account is not None
    assert delinquent.account.delinquent_at is not None
    assert delinquent.suspends_at == delinquent.account.delinquent_at + timedelta(hours=5)
    assert credits.suspend_delinquent_owner(conn, owner_id, 0)
    assert state() == "suspended"
    credits.set_plan(conn, owner_id, "comped", actor="cli")
    assert state() == "comped"
    owners.suspend(conn, owner_id, reason="abuse", actor="operator")
    assert state() == "paused"
    owners.lift_suspension(conn, owner_id, actor="operator")
    metering.set_metering_enabled(conn, False)
    assert (state(), status.get_billing_flags(conn, owner_id)) == ("off", (False, True))
