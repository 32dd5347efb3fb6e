"""The outbox: each message is taken by one worker at a time and retried with growing delays."""

from datetime import UTC, datetime, timedelta

import pytest

from bus.db import Connection, Database
from bus.errors import BusError, InvalidArgument
from bus.notifications import outbox
from bus.tenancy.projects import Project
from tests.concurrency import run_numbered_concurrently
from tests.factories import make_owner, make_project


def _due_now(conn: Connection) -> None:
    conn.execute("UPDATE notice SET due_at = clock_timestamp() WHERE due_at IS NOT NULL")


def test_a_message_goes_to_every_webhook_of_its_project_and_to_the_address(conn: Connection, project: Project) -> None:
    owner_id = project.owner_id
    webhook = outbox.add_webhook(conn, owner_id, "https://example.org/project", project_id=project.id, actor="cli")
    outbox.add_webhook(conn, owner_id, "https://example.org/owner", actor="cli")
    outbox.add_webhook(conn, make_owner(conn).id, "https://example.org/stranger", actor="cli")
    assert outbox.enqueue(conn, "test", owner_id=owner_id, project_id=project.id, email="a@example.org", n=1) == 2
    taken = outbox.take_due(conn)
    assert [
        (message.channel, message.target, message.content, message.attempts, message.secret) for message in taken
    ] == [
        ("webhook", webhook.url, {"n": 1}, 1, webhook.secret),
        ("email", "a@example.org", {"n": 1}, 1, ""),
    ]
    assert outbox.take_due(conn) == []


def test_a_failed_message_is_retried_with_growing_delays(conn: Connection, project: Project) -> None:
    outbox.enqueue(conn, "test", owner_id=project.owner_id, email="a@example.org")
    for attempt, delay in enumerate((*outbox.RETRY_DELAYS_SECONDS, None), 1):
        (taken,) = outbox.take_due(conn)
        assert taken.attempts == attempt
        outbox.record_attempt(conn, taken, delivered=False, result="no answer")
        (logged,) = outbox.list_log_entries(conn, project.owner_id)
        if delay is None:
            assert (logged.state, logged.last_result) == ("given up", "no answer")
        else:
            assert logged.state == "waiting"
            assert logged.due_at is not None
            assert abs((logged.due_at - datetime.now(UTC)) - timedelta(seconds=delay)) < timedelta(seconds=5)
            _due_now(conn)
    _due_now(conn)
    assert outbox.take_due(conn) == []


def test_a_delivered_message_is_not_sent_again(conn: Connection, project: Project) -> None:
    outbox.enqueue(conn, "test", owner_id=project.owner_id, email="a@example.org")
    (taken,) = outbox.take_due(conn)
    outbox.record_attempt(conn, taken, delivered=True, result="200")
    # The late result of another worker changes nothing.
    outbox.record_attempt(conn, taken, delivered=False, result="timeout")
    _due_now(conn)
    (logged,) = outbox.list_log_entries(conn, project.owner_id)
    assert (logged.state, logged.last_result) == ("delivered", "200")
    assert outbox.take_due(conn) == []


def test_a_permanent_error_gives_the_message_up_at_once(conn: Connection, project: Project) -> None:
    outbox.enqueue(conn, "test", owner_id=project.owner_id, email="a@example.org")
    (taken,) = outbox.take_due(conn)
    outbox.record_attempt(conn, taken, delivered=False, result="550 no such mailbox", permanent=True)
    assert outbox.list_log_entries(conn, project.owner_id)[0].state == "given up"


def test_a_message_of_a_worker_that_died_is_taken_again(conn: Connection, project: Project) -> None:
    outbox.enqueue(conn, "test", owner_id=project.owner_id, email="a@example.org")
    (first,) = outbox.take_due(conn)
    _due_now(conn)
    (again,) = outbox.take_due(conn)
    assert (again.id, again.attempts) == (first.id, 2)


def test_concurrent_workers_take_each_message_once(db: Database) -> None:
    with db.transaction() as conn:
        owner = make_owner(conn)
        for number in range(60):
            outbox.enqueue(conn, "test", owner_id=owner.id, email=f"a{number}@example.org")
    batches = run_numbered_concurrently(
        db, 8, lambda conn, _: [message.id for message in outbox.take_due(conn, limit=10)]
    )
    taken = [message_id for batch in batches for message_id in batch]
    assert len(taken) == len(set(taken)) == 60


def test_a_removed_webhook_gets_no_more_messages(conn: Connection, project: Project) -> None:
    webhook = outbox.add_webhook(conn, project.owner_id, "https://example.org/x", project_id=project.id, actor="cli")
    outbox.enqueue(conn, "test", owner_id=project.owner_id, project_id=project.id)
    with pytest.raises(BusError) as refused:
        outbox.remove_webhook(conn, make_owner(conn).id, webhook.id, actor="cli")
    assert refused.value.code == "not_found"
    outbox.remove_webhook(conn, project.owner_id, webhook.id, actor="cli")
    assert outbox.list_webhooks(conn, project.owner_id, project_id=project.id) == []
    assert outbox.take_due(conn) == []
    assert outbox.list_log_entries(conn, project.owner_id)[0].state == "given up"
    assert outbox.enqueue(conn, "test", owner_id=project.owner_id, project_id=project.id) == 0


@pytest.mark.parametrize(
    "url",
    ["", "x", "ftp://example.org", "https://", "https://user:pw@example.org/", "https://a b.org", "https://x:99999/",
     "javascript:alert(1)", "https://" + "x" * 2000],
)  # fmt: skip
def test_a_malformed_webhook_url_is_refused(conn: Connection, url: str) -> None:
    with pytest.raises(InvalidArgument, match="url"):
        outbox.add_webhook(conn, make_owner(conn).id, url, actor="cli")


def test_concurrent_additions_stop_at_ten_webhooks(db: Database) -> None:
    with db.transaction() as conn:
        project = make_project(conn)

    def add(conn: Connection, number: int) -> object:
        return outbox.add_webhook(
            conn, project.owner_id, f"https://example.org/{number}", project_id=project.id, actor="cli"
        )

    outcomes = run_numbered_concurrently(db, 16, add)
    assert sum(isinstance(outcome, outbox.Webhook) for outcome in outcomes) == 10
    assert {outcome.code for outcome in outcomes if isinstance(outcome, BusError)} == {"conflict"}
