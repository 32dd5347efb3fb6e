"""Owners take turns in the outbox, and the messages for a destination that does not answer wait as a whole."""

from bus.db import Connection, Database
from bus.notifications import circuit_breaker, outbox
from bus.notifications.outbox import OutboxMessage
from tests.concurrency import run_numbered_concurrently
from tests.factories import make_owner

_TARPIT, _GOOD = "https://tarpit.example.org/hook", "https://good.example.org/hook"


def _queue(conn: Connection, owner_id: int, count: int = 1) -> None:
    for _ in range(count):
        outbox.enqueue(conn, "test", owner_id=owner_id)


def _make_owner_with_webhooks(conn: Connection, *urls: str, messages: int) -> int:
    owner_id = make_owner(conn).id
    for url in urls:
        outbox.add_webhook(conn, owner_id, url, actor="cli")
    _queue(conn, owner_id, messages)
    return owner_id


def _fail(conn: Connection, message: OutboxMessage) -> None:
    outbox.record_attempt(conn, message, delivered=False, result="ReadTimeout", unreachable=True)


def _deliver(conn: Connection, message: OutboxMessage) -> None:
    outbox.record_attempt(conn, message, delivered=True, result="200")


def _end_pause(conn: Connection) -> None:
    conn.execute("UPDATE circuit_breaker SET open_until = clock_timestamp()")


def _pause_seconds(conn: Connection) -> float:
    (pause,) = conn.fetch_one("SELECT open_until - clock_timestamp() FROM circuit_breaker")
    return float(pause.total_seconds())


def test_an_owner_with_three_hundred_messages_holds_up_no_other(conn: Connection) -> None:
    busy = _make_owner_with_webhooks(conn, _TARPIT, messages=300)
    others = [_make_owner_with_webhooks(conn, _GOOD, messages=2) for _ in range(3)]
    taken = outbox.take_due(conn, limit=5)
    assert sorted(message.owner_id for message in taken) == sorted([busy, busy, *others])


def test_the_turn_goes_round(conn: Connection) -> None:
    owners = [_make_owner_with_webhooks(conn, _GOOD, messages=4) for _ in range(3)]
    turns, last = [], 0
    for _ in range(6):
        (message,) = outbox.take_due(conn, limit=1, after_owner=last)
        last = message.owner_id
        turns.append(last)
    assert turns == owners * 2


def test_an_owner_with_deliveries_under_way_comes_later(conn: Connection) -> None:
    first = _make_owner_with_webhooks(conn, _TARPIT, _GOOD, messages=4)
    second = _make_owner_with_webhooks(conn, _GOOD, messages=4)
    tarpit = circuit_breaker.webhook_destination(_TARPIT)
    taken = outbox.take_due(conn, limit=1, in_flight={(first, tarpit): 1})
    assert [message.owner_id for message in taken] == [second]
    # One at a time for each destination.
    taken = outbox.take_due(conn, limit=9, per_destination=1, in_flight={(first, tarpit): 1})
    assert sorted((message.owner_id, message.target) for message in taken) == [(first, _GOOD), (second, _GOOD)]


def test_the_messages_of_a_destination_are_taken_in_order(conn: Connection) -> None:
    owner_id = _make_owner_with_webhooks(conn, _GOOD, messages=5)
    order = []
    for _ in range(5):
        (message,) = outbox.take_due(conn, per_destination=1)
        order.append(message.id)
        _deliver(conn, message)
    assert order == sorted(order)
    assert outbox.list_log_entries(conn, owner_id)[0].state == "delivered"


def test_a_destination_that_does_not_answer_waits_as_a_whole(conn: Connection) -> None:
    owner_id = _make_owner_with_webhooks(conn, _TARPIT, _GOOD, messages=3)
    first = next(message for message in outbox.take_due(conn, per_destination=1) if message.target == _TARPIT)
    _fail(conn, first)
    rest = outbox.take_due(conn)
    assert {message.target for message in rest} == {_GOOD}
    (breaker,) = circuit_breaker.list_open_breakers(conn)
    assert breaker.destination == "https://tarpit.example.org"
    assert (breaker.failures, breaker.last_error, breaker.waiting) == (1, "ReadTimeout", 3)
    # Another webhook at the same host waits too, with another path.
    outbox.add_webhook(conn, owner_id, "https://TARPIT.example.org/other", actor="cli")
    _queue(conn, owner_id)
    assert {message.target for message in outbox.take_due(conn)} == {_GOOD}


def test_one_message_shows_whether_a_destination_answers_again(conn: Connection) -> None:
    _make_owner_with_webhooks(conn, _TARPIT, messages=20)
    (message,) = outbox.take_due(conn, limit=1)
    _fail(conn, message)
    for failures, pause in enumerate((*circuit_breaker.PAUSES_SECONDS[1:], circuit_breaker.PAUSES_SECONDS[-1]), 2):
        assert outbox.take_due(conn) == []
        _end_pause(conn)
        (probe,) = outbox.take_due(conn)
        assert probe.is_probe
        # Until its result is there, no other message is sent.
        assert outbox.take_due(conn) == []
        _fail(conn, probe)
        assert circuit_breaker.list_open_breakers(conn)[0].failures == failures
        assert abs(_pause_seconds(conn) - pause) < 5
    _end_pause(conn)
    (probe,) = outbox.take_due(conn)
    _deliver(conn, probe)
    assert circuit_breaker.list_open_breakers(conn) == []
    assert len(outbox.take_due(conn)) > 1


def test_a_refusal_is_an_answer(conn: Connection) -> None:
    _make_owner_with_webhooks(conn, _GOOD, messages=2)
    (message,) = outbox.take_due(conn, limit=1)
    outbox.record_attempt(conn, message, delivered=False, result="500 error")
    assert circuit_breaker.list_open_breakers(conn) == []
    assert len(outbox.take_due(conn)) == 1


def test_attempts_that_began_together_count_as_one_failure(conn: Connection) -> None:
    _make_owner_with_webhooks(conn, _TARPIT, messages=3)
    for message in outbox.take_due(conn):
        _fail(conn, message)
    assert circuit_breaker.list_open_breakers(conn)[0].failures == 1


def test_a_webhook_of_one_owner_cannot_stop_that_of_another_at_the_same_host(conn: Connection) -> None:
    first = _make_owner_with_webhooks(conn, _TARPIT, messages=2)
    second = _make_owner_with_webhooks(conn, _TARPIT, messages=2)
    message = next(message for message in outbox.take_due(conn, per_destination=1) if message.owner_id == first)
    _fail(conn, message)
    assert {message.owner_id for message in outbox.take_due(conn)} == {second}


def test_all_owners_wait_for_the_mail_server(conn: Connection) -> None:
    for number in range(3):
        owner_id = make_owner(conn).id
        for _ in range(2):
            outbox.enqueue(conn, "test", owner_id=owner_id, email=f"a{number}@example.org")
    _make_owner_with_webhooks(conn, _GOOD, messages=1)
    (message,) = outbox.take_due(conn, limit=1, channel="email")
    _fail(conn, message)
    assert outbox.take_due(conn, channel="email") == []
    (breaker,) = circuit_breaker.list_open_breakers(conn)
    assert (breaker.owner, breaker.destination) == (None, "mail server")
    # The pause is over: of all owners one message is the probe.
    _end_pause(conn)
    (probe,) = outbox.take_due(conn, channel="email")
    assert len(outbox.take_due(conn, channel="webhook")) == 1
    _deliver(conn, probe)
    assert len(outbox.take_due(conn, channel="email")) == 4


def test_messages_that_waited_for_three_days_are_given_up(conn: Connection) -> None:
    owner_id = _make_owner_with_webhooks(conn, _TARPIT, messages=3)
    conn.execute("UPDATE notice SET created_at = created_at - interval '73 hours' WHERE owner_id = %s", (owner_id,))
    _queue(conn, owner_id)
    (message,) = outbox.take_due(conn, limit=1)
    _fail(conn, message)
    entries = outbox.list_log_entries(conn, owner_id)
    assert [entry.state for entry in entries] == ["waiting", "given up", "given up", "given up"]
    assert entries[-1].last_result == "given up after 3 days: ReadTimeout"


def test_messages_of_the_previous_version_without_a_destination_are_sent(conn: Connection) -> None:
    owner_id = _make_owner_with_webhooks(conn, _GOOD, messages=1)
    conn.execute("UPDATE notice SET destination = '' WHERE owner_id = %s", (owner_id,))
    (message,) = outbox.take_due(conn, channel="webhook")
    _fail(conn, message)
    assert circuit_breaker.list_open_breakers(conn)[0].destination == ""


def test_concurrent_workers_take_each_message_of_several_owners_once(db: Database) -> None:
    with db.transaction() as conn:
        for _ in range(4):
            _make_owner_with_webhooks(conn, _GOOD, messages=10)
    batches = run_numbered_concurrently(db, 8, lambda conn, _: outbox.take_due(conn, limit=8))
    with db.transaction() as conn:
        # A worker may have skipped what another had locked and not taken.
        batches.append(outbox.take_due(conn))
    taken = [message.id for batch in batches for message in batch]
    assert len(taken) == len(set(taken)) == 40
