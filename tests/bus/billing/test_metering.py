"""Metering: each event is billed once, at the price of its own time; earlier events are never billed."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from bus.billing import credits, metering, prices
from bus.coordination import leases, ledger, posts, presence, sequences
from bus.db import Connection, Database
from bus.operations import integrity_checks, project_purge
from bus.rules.enums import EVENT_TYPES
from bus.tenancy.projects import Project
from tests.concurrency import run_numbered_concurrently, vary_timing, wait_until
from tests.factories import Agent, make_agent, make_owner, make_project


def _balance(conn: Connection, project: Project) -> int:
    account = credits.find_account(conn, project.owner_id)
    return 0 if account is None else account.balance


def test_nothing_is_billed_while_metering_is_off(conn: Connection, project: Project, ada: Agent) -> None:
    sequences.claim(conn, ada.ctx, "adr")
    assert not metering.is_metering_enabled(conn)
    assert metering.bill_batch(conn, project.id) == metering.BilledBatch(0, 0, False)
    assert credits.find_account(conn, project.owner_id) is None


def test_events_before_metering_began_are_never_billed(conn: Connection, project: Project, ada: Agent) -> None:
    for _ in range(3):
        sequences.claim(conn, ada.ctx, "adr")
    assert metering.set_metering_enabled(conn, True)
    assert not metering.set_metering_enabled(conn, True)
    assert metering.list_unmetered_projects(conn) == []
    sequences.claim(conn, ada.ctx, "adr")
    assert metering.list_unmetered_projects(conn) == [project.id]
    assert metering.bill_batch(conn, project.id) == metering.BilledBatch(1, 1, False)
    # Events while metering is off are not billed either.
    assert metering.set_metering_enabled(conn, False)
    sequences.claim(conn, ada.ctx, "adr")
    assert metering.set_metering_enabled(conn, True)
    assert metering.bill_batch(conn, project.id).events == 0
    # A project created while metering is on is billed from its first event.
    other = make_project(conn)
    sequences.claim(conn, make_agent(conn, other).ctx, "adr")
    assert metering.bill_batch(conn, other.id).events == 1
    assert integrity_checks.check_project(conn, project.id) == []


def test_each_ledger_event_except_register_costs_a_credit(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    metering.set_metering_enabled(conn, True)
    presence.register(conn, ada.ctx, "api")
    sequences.seed(conn, ada.ctx, "adr", 4)
    sequences.claim(conn, ada.ctx, "adr")
    leases.acquire(conn, ada.ctx, "a.py")
    leases.release(conn, ada.ctx, "*")
    post_id = posts.create(conn, ada.ctx, "x", to_actor="bob").post_id
    posts.ack(conn, bob.ctx, [post_id])
    ledger.query_events(conn, ada.ctx)
    billed = metering.bill_batch(conn, project.id, trial_credits=100)
    assert (billed.events, billed.credits) == (7, 6)
    usage = credits.list_entries(conn, project.owner_id)[0]
    assert (usage.kind, usage.amount, usage.balance) == ("usage", -6, 94)
    assert usage.detail == {
        "ack": [1, 1], "claim": [1, 1], "lease": [1, 1], "post": [1, 1], "register": [1, 0], "release": [1, 1],
        "seed": [1, 1],
    }  # fmt: skip
    assert usage.first_seq is not None
    assert usage.last_seq == usage.first_seq + 6


def test_every_type_of_event_has_a_price(conn: Connection) -> None:
    assert {price.event_type for price in prices.list_prices(conn)} == set(EVENT_TYPES)


def test_an_event_at_the_first_moment_of_a_price_costs_the_new_price(
    conn: Connection, project: Project, ada: Agent
) -> None:
    metering.set_metering_enabled(conn, True)
    for _ in range(3):
        sequences.claim(conn, ada.ctx, "adr")
    # The new price begins at the very time of the second event.
    conn.execute(
        "INSERT INTO price (event_type, effective_from, credits)"
        " SELECT 'claim', e.at, 70 FROM event e WHERE e.project_id = %s AND e.seq = 2",
        (project.id,),
    )
    times = [at for (at,) in conn.fetch_all("SELECT at FROM event WHERE project_id = %s ORDER BY seq", (project.id,))]
    billed = [metering.bill_batch(conn, project.id, limit=1).credits for _ in times]
    assert billed == [70 if at >= times[1] else 1 for at in times]
    assert billed[1:] == [70, 70]


def test_a_debit_takes_a_bounded_number_of_events(conn: Connection, project: Project, ada: Agent) -> None:
    metering.set_metering_enabled(conn, True)
    for _ in range(5):
        sequences.claim(conn, ada.ctx, "adr")
    assert [metering.bill_batch(conn, project.id, limit=2) for _ in range(4)] == [
        metering.BilledBatch(2, 2, True),
        metering.BilledBatch(2, 2, True),
        metering.BilledBatch(1, 1, False),
        metering.BilledBatch(0, 0, False),
    ]
    assert _balance(conn, project) == -5


def test_a_purge_bills_the_project_first(conn: Connection, project: Project, ada: Agent) -> None:
    metering.set_metering_enabled(conn, True)
    for _ in range(3):
        sequences.claim(conn, ada.ctx, "adr")
    project_purge.begin_purge(conn, project.id, actor="test")
    assert _balance(conn, project) == -3
    while not project_purge.purge_step(conn, project.id):
        pass
    assert [entry.amount for entry in credits.list_entries(conn, project.owner_id)] == [-3]


def test_a_purge_bills_an_event_that_commits_while_it_waits_for_the_clock(db: Database) -> None:
    with db.transaction() as conn:
        project = make_project(conn)
        agent = make_agent(conn, project)
        metering.set_metering_enabled(conn, True)

    def begin_purge() -> bool:
        with db.transaction() as conn:
            return project_purge.begin_purge(conn, project.id, actor="test")

    def is_purge_waiting() -> bool:
        with db.connection() as watcher:
            (waiting,) = watcher.fetch_one(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return bool(waiting)

    with ThreadPoolExecutor(1) as pool:
        with db.transaction() as writer:
            sequences.claim(writer, agent.ctx, "adr")
            purge = pool.submit(begin_purge)
            wait_until(is_purge_waiting)
        assert purge.result()
    with db.connection() as conn:
        assert _balance(conn, project) == -1


@pytest.mark.parametrize("meters", [3])
def test_concurrent_meters_bill_each_event_once_beside_writers(db: Database, meters: int) -> None:
    """Writers commit late or roll back, so meters see different ends of the ledger; the sum is exact."""
    with db.transaction() as conn:
        owner = make_owner(conn)
        teams = [make_agent(conn, make_project(conn, owner=owner)) for _ in range(3)]
        metering.set_metering_enabled(conn, True)
    committed = [0] * 8
    stop = threading.Event()

    def write(number: int) -> None:
        randomness = random.Random(number)
        for _ in range(40):
            agent = teams[randomness.randrange(3)]
            try:
                with db.transaction() as conn:
                    sequences.claim(conn, agent.ctx, "adr")
                    vary_timing(randomness, 0.01)
                    if randomness.random() < 0.1:
                        raise LookupError
            except LookupError:
                continue
            committed[number] += 1

    def meter() -> None:
        while not stop.is_set():
            for agent in teams:
                with db.transaction() as conn:
                    metering.bill_batch(conn, agent.ctx.project_id, limit=7)

    metering_threads = [threading.Thread(target=meter) for _ in range(meters)]
    writing = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in (*metering_threads, *writing):
        thread.start()
    for thread in writing:
        thread.join()
    stop.set()
    for thread in metering_threads:
        thread.join()
    with db.transaction() as conn:
        for agent in teams:
            while metering.bill_batch(conn, agent.ctx.project_id).has_more:
                pass
    with db.transaction() as conn:
        account = credits.find_account(conn, owner.id)
        assert account is not None
        assert account.balance == -sum(committed)
        assert sum(committed) > 200
        assert integrity_checks.check_accounts(conn) == []
        for agent in teams:
            assert integrity_checks.check_project(conn, agent.ctx.project_id) == []


def test_switching_on_during_billing_bills_no_earlier_event(db: Database) -> None:
    for _ in range(10):
        with db.transaction() as conn:
            metering.set_metering_enabled(conn, False)
            project = make_project(conn)
            ada = make_agent(conn, project)
            for _ in range(3):
                sequences.claim(conn, ada.ctx, "adr")

        def switch_or_bill(conn: Connection, number: int, project: Project = project) -> object:
            return metering.set_metering_enabled(conn, True) if number % 2 else metering.bill_batch(conn, project.id)

        run_numbered_concurrently(db, 8, switch_or_bill)
        with db.transaction() as conn:
            metering.bill_batch(conn, project.id)
            assert _balance(conn, project) == 0
