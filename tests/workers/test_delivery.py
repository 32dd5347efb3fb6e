"""Delivery of notices: an undeliverable notice is given up eventually and blocks no other."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from bus.config.settings import Settings
from bus.db import Database
from bus.notifications import circuit_breaker, outbox
from bus.operations import project_purge
from tests import servers
from tests.concurrency import wait_until
from tests.factories import make_owner, make_project
from tests.webhook_server import running_webhook_server
from tests.workers import processes
from workers import webhooks
from workers.job_runner import execute_job
from workers.jobs import all_jobs
from workers.jobs import outbox as outbox_job
from workers.settings import WorkerSettings

_SEND = all_jobs()["send_notices"]


@pytest.fixture
def settings(database_url: str) -> WorkerSettings:
    return WorkerSettings(
        bus=Settings(database_url=servers.application_url(database_url)),
        smtp_url="smtp://127.0.0.1:9",
        allow_private_webhooks=True,
    )


@pytest.mark.parametrize(("url", "address"), [("http://a..b/", None), (None, "a@["), (None, '"')])
def test_an_undeliverable_notice_blocks_no_other_and_is_given_up(
    db: Database, settings: WorkerSettings, url: str | None, address: str | None
) -> None:
    with db.transaction() as conn:
        first, second = make_owner(conn), make_owner(conn)
        if url is not None:
            # The name passes validation and cannot be resolved.
            outbox.add_webhook(conn, first.id, url, actor="cli")
        outbox.enqueue(conn, "test", owner_id=first.id, email=address)
        outbox.add_webhook(conn, second.id, "http://127.0.0.1:9/", actor="cli")
        outbox.enqueue(conn, "test", owner_id=second.id)
    assert execute_job(_SEND, db, settings).counts == {"not_delivered": 2}
    for _ in outbox.RETRY_DELAYS_SECONDS:
        with db.transaction() as conn:
            conn.execute("UPDATE notice SET due_at = clock_timestamp()")
            conn.execute("UPDATE circuit_breaker SET open_until = clock_timestamp()")
        assert execute_job(_SEND, db, settings).outcome == "ok"
    with db.connection() as conn:
        entries = [entry for owner in (first, second) for entry in outbox.list_log_entries(conn, owner.id)]
    assert [entry.state for entry in entries] == ["given up"] * 2


@pytest.mark.parametrize("purged", [True, False])
def test_a_removed_webhook_receives_nothing_more(db: Database, settings: WorkerSettings, purged: bool) -> None:
    """Its secret is gone too, and a signature with an empty key proves nothing."""
    with db.transaction() as conn:
        project = make_project(conn)
        hook = outbox.add_webhook(conn, project.owner_id, "http://127.0.0.1:9/", project_id=project.id, actor="cli")
        if purged:
            outbox.enqueue(conn, "test", owner_id=project.owner_id, project_id=project.id)
            project_purge.begin_purge(conn, project.id, actor="cli")
            while not project_purge.purge_step(conn, project.id):
                pass
        else:
            # Removed after another transaction had read the list of webhooks.
            outbox.enqueue(conn, "test", owner_id=project.owner_id, project_id=project.id)
            conn.execute("UPDATE webhook SET removed_at = clock_timestamp() WHERE id = %s", (hook.id,))
    execute_job(_SEND, db, settings)
    with db.connection() as conn:
        (entry,) = outbox.list_log_entries(conn, project.owner_id)
    reason = "the project was deleted" if purged else "the webhook was removed"
    assert (entry.state, entry.last_result) == ("given up", reason)


class _Tarpit:
    """A server that accepts connections and never answers."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        self.connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.connections.append(self._listener.accept()[0])

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.connections:
            connection.close()
        self._thread.join()


@pytest.fixture
def tarpit() -> Iterator[_Tarpit]:
    server = _Tarpit()
    yield server
    server.close()


def _queue_for_tarpit(db: Database, tarpit: _Tarpit, count: int) -> int:
    with db.transaction() as conn:
        owner = make_owner(conn)
        outbox.add_webhook(conn, owner.id, f"http://127.0.0.1:{tarpit.port}/", actor="cli")
        for _ in range(count):
            outbox.enqueue(conn, "test", owner_id=owner.id)
    return owner.id


def test_a_message_is_delivered_while_a_receiver_of_another_owner_does_not_answer(
    db: Database, settings: WorkerSettings, tarpit: _Tarpit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "_TIMEOUT_SECONDS", 2.0)
    _queue_for_tarpit(db, tarpit, 20)
    run = threading.Thread(target=execute_job, args=(_SEND, db, settings))
    run.start()
    wait_until(lambda: tarpit.connections)
    # One connection at a time to one destination.
    assert len(tarpit.connections) == 1
    with running_webhook_server() as receiver:
        with db.transaction() as conn:
            other = make_owner(conn)
            outbox.add_webhook(conn, other.id, f"{receiver.url}/hook", actor="cli")
            outbox.enqueue(conn, "test", owner_id=other.id)
        # The same run sees the new message; another run of this process ends at once.
        assert execute_job(_SEND, db, settings).counts == {}
        receiver.wait_until(lambda: receiver.bodies("/hook"))
        assert run.is_alive()
        run.join()
    with db.connection() as conn:
        (breaker,) = circuit_breaker.list_open_breakers(conn)
    # After the first timeout the other nineteen wait without a connection.
    assert (breaker.failures, breaker.waiting, len(tarpit.connections)) == (1, 20, 1)


def test_owners_take_turns_within_a_run(
    db: Database, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for one message at a time, the owner of the last one comes last."""
    monkeypatch.setattr(outbox_job, "_MAX_DELIVERIES", {"webhook": 1, "email": 1})
    with running_webhook_server() as receiver:
        with db.transaction() as conn:
            for name in ("first", "second", "third"):
                owner = make_owner(conn)
                outbox.add_webhook(conn, owner.id, f"{receiver.url}/{name}", actor="cli")
                for _ in range(2):
                    outbox.enqueue(conn, "test", owner_id=owner.id)
        assert execute_job(_SEND, db, settings).counts == {"delivered": 6}
        order = [head.partition("\n")[0] for head, _ in receiver.requests]
    assert set(order[:3]) == set(order[3:]) == {"/first", "/second", "/third"}


@pytest.mark.exhaustive
def test_three_hundred_messages_for_a_tarpit_delay_those_of_another_owner_by_at_most_ten_seconds(
    database_url: str, redis_url: str, db: Database, tarpit: _Tarpit
) -> None:
    """Real worker and scheduler; messages of the other owner are queued every second for half a minute."""
    _queue_for_tarpit(db, tarpit, 300)
    queued_at: dict[int, float] = {}
    delays: dict[int, float] = {}
    with (
        running_webhook_server() as receiver,
        processes.running_workers(database_url, redis_url, WEBHOOKS_TO_PRIVATE="1", JOB_EVERY=""),
    ):
        wait_until(lambda: tarpit.connections, 60)
        with db.transaction() as conn:
            other = make_owner(conn)
            outbox.add_webhook(conn, other.id, f"{receiver.url}/hook", actor="cli")

        def queue_and_measure() -> bool:
            now = time.monotonic()
            if len(queued_at) < 30 and (not queued_at or now - max(queued_at.values()) >= 1):
                with db.transaction() as conn:
                    outbox.enqueue(conn, "test", owner_id=other.id)
                queued_at[len(queued_at)] = now
            # They arrive in order.
            for number in range(len(delays), len(receiver.bodies("/hook"))):
                delays[number] = now - queued_at[number]
            return len(delays) == 30

        wait_until(queue_and_measure, 120)
    print(f"delays: median {sorted(delays.values())[15]:.1f} s, longest {max(delays.values()):.1f} s")
    assert max(delays.values()) <= 10
