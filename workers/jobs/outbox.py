"""Deliver pending webhooks and e-mails, several at once; owners take turns."""

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from bus.db import Database
from bus.errors import BusError
from bus.notifications import invite_mails, outbox
from bus.notifications.outbox import OutboxMessage
from workers import mail, webhooks
from workers.delivery import DeliveryResult
from workers.job_runner import JobRun, job
from workers.settings import WorkerSettings

_log = logging.getLogger(__name__)
# Deliveries of one process at once, by channel. Each is a thread that waits for its receiver, without a connection to
# the database.
_MAX_DELIVERIES = {"webhook": 16, "email": 4}
# One webhook at a time for each destination of an owner, which keeps their order; e-mails have one common destination.
_MAX_PER_DESTINATION = {"webhook": 1, "email": 2}
# How soon a message that becomes due during a run is seen.
_POLL_SECONDS = 1.0


class _Turns:
    """The deliveries that are under way in this process, and which owner had the last turn, over all runs.

    One run at a time takes messages; a run that waits for its last receivers does not keep the next one from starting.
    """

    def __init__(self) -> None:
        self.taking = threading.Lock()
        self.last_owner = dict.fromkeys(_MAX_DELIVERIES, 0)
        self._lock = threading.Lock()
        self._in_flight = {channel: Counter[tuple[int, str]]() for channel in _MAX_DELIVERIES}

    def in_flight(self, channel: str) -> Counter[tuple[int, str]]:
        """Return the number of deliveries under way by owner and destination."""
        with self._lock:
            return +self._in_flight[channel]

    def count(self, message: OutboxMessage, change: int) -> None:
        """Record that a delivery begins (1) or has ended (-1)."""
        with self._lock:
            self._in_flight[message.channel][message.owner_id, message.destination] += change


_turns = _Turns()


@job(interval=5, time_budget=60)
def send_notices(run: JobRun) -> None:
    """Deliver pending webhooks and e-mails; failures are retried with growing delays."""
    if not _turns.taking.acquire(blocking=False):
        return
    deliveries: dict[Future[DeliveryResult], OutboxMessage] = {}
    with ThreadPoolExecutor(sum(_MAX_DELIVERIES.values()), thread_name_prefix="delivery") as executor:
        try:
            while not run.should_stop():
                for message in _prepare(run.db, _take_due(run.db)):
                    _turns.count(message, 1)
                    deliveries[executor.submit(_deliver, run.settings, message)] = message
                if not deliveries:
                    break
                _record_finished(run, deliveries, timeout=_POLL_SECONDS)
        finally:
            _turns.taking.release()
            while deliveries:
                _record_finished(run, deliveries, timeout=None)


def _take_due(db: Database) -> list[OutboxMessage]:
    messages: list[OutboxMessage] = []
    for channel, maximum in _MAX_DELIVERIES.items():
        in_flight = _turns.in_flight(channel)
        free = maximum - in_flight.total()
        if free <= 0:
            continue
        with db.transaction() as conn:
            taken = outbox.take_due(
                conn,
                limit=free,
                channel=channel,
                per_destination=_MAX_PER_DESTINATION[channel],
                in_flight=in_flight,
                after_owner=_turns.last_owner[channel],
            )
        if taken:
            # The last one in the order of turns, which begins after the owner of the last turn.
            last = _turns.last_owner[channel]
            _turns.last_owner[channel] = max((message.owner_id <= last, message.owner_id) for message in taken)[1]
        messages += taken
    return messages


def _prepare(db: Database, messages: list[OutboxMessage]) -> Iterator[OutboxMessage]:
    """Complete what the outbox does not hold; a message that is given up meanwhile is left out."""
    for message in messages:
        if message.kind != invite_mails.KIND:
            yield message
            continue
        try:
            with db.transaction() as conn:
                prepared = invite_mails.prepare(conn, message)
        except BusError:
            # It is due again after its delay.
            _log.warning("notice %s could not be prepared", message.id, exc_info=True)
            continue
        if prepared is not None:
            yield prepared


def _record_finished(
    run: JobRun, deliveries: dict[Future[DeliveryResult], OutboxMessage], *, timeout: float | None
) -> None:
    """Wait until a delivery has ended, or for `timeout` seconds, and record the results."""
    finished, _ = wait(deliveries, timeout=timeout, return_when=FIRST_COMPLETED)
    for future in finished:
        message = deliveries.pop(future)
        result = future.result()
        with run.db.transaction() as conn:
            outbox.record_attempt(
                conn,
                message,
                delivered=result.delivered,
                result=result.detail,
                permanent=result.permanent,
                unreachable=result.unreachable,
            )
        run.counts["delivered" if result.delivered else "not_delivered"] += 1


def _deliver(settings: WorkerSettings, message: OutboxMessage) -> DeliveryResult:
    try:
        if message.channel == "webhook":
            return webhooks.send(message, allow_private=settings.allow_private_webhooks)
        return mail.send(message, settings)
    except Exception as error:  # noqa: BLE001 - one bad notice must not block the others
        _log.exception("notice %s could not be sent", message.id)
        return DeliveryResult(False, f"it could not be sent: {type(error).__name__}")
    finally:
        _turns.count(message, -1)
