"""Circuit breakers: the messages for a destination that does not answer wait as a whole.

A destination is the server that is connected to: scheme, host and port of a webhook, or the mail server. Each owner has
its own breaker for a host, so that no owner can hold up the webhooks of another; all owners share that of the mail
server. When the pause of a breaker is over, one message is sent as a probe (`outbox.take_due`).
Source: docs/decisions/0033-delivery.md
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from bus.db import Connection
from bus.notifications.tables import MAIL_SERVER

# Pauses after the first, second, ... failure in a row; the last one is repeated.
PAUSES_SECONDS = (10, 30, 60, 300, 900, 1800)
# A probe that has no result after this time, as of a worker that was killed, is repeated.
PROBE_TIMEOUT_SECONDS = 60
# Messages for a destination that never answers are given up after this time.
MAX_WAIT = timedelta(days=3)
_GIVE_UP_BATCH_SIZE = 1000
_MAX_ERROR_LENGTH = 200
_SHARED_OWNER_ID = 0


@dataclass(frozen=True, slots=True)
class OpenBreaker:
    """A destination that does not answer.

    Attributes:
        owner: handle of the owner whose webhook it is; None for the mail server.
        failures: failed attempts in a row.
        open_until: time of the next probe.
        waiting: its undelivered messages, at most 1,000.
    """

    owner: str | None
    destination: str
    failures: int
    failed_since: datetime
    open_until: datetime
    last_error: str
    waiting: int


def webhook_destination(url: str) -> str:
    """Return scheme, host and port of a webhook."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def breaker_owner_sql(owner_id: str, destination: str) -> str:
    """Return the SQL expression for the owner_id of the breaker of a message; the arguments are column names."""
    return f"CASE WHEN {destination} = '{MAIL_SERVER}' THEN {_SHARED_OWNER_ID} ELSE {owner_id} END"


def record_failure(conn: Connection, owner_id: int, destination: str, error: str, *, was_probe: bool) -> None:
    """Open the breaker of a destination that did not answer, for longer after each failure.

    Attempts that began before the breaker opened count as one failure.
    """
    conn.execute(
        "INSERT INTO circuit_breaker AS b (owner_id, destination, failures, open_until, last_error)"
        " VALUES (%(owner)s, %(destination)s, 1, clock_timestamp() + make_interval(secs => %(first)s), %(error)s)"
        " ON CONFLICT (owner_id, destination) DO UPDATE SET failures = b.failures + 1,"
        "  open_until = clock_timestamp() + make_interval(secs =>"
        "   (%(pauses)s::integer[])[least(b.failures + 1, cardinality(%(pauses)s::integer[]))]),"
        "  last_error = excluded.last_error"
        " WHERE %(probe)s OR b.open_until <= clock_timestamp()",
        {
            "owner": _breaker_owner(owner_id, destination),
            "destination": destination,
            "first": PAUSES_SECONDS[0],
            "pauses": list(PAUSES_SECONDS),
            "error": error[:_MAX_ERROR_LENGTH],
            "probe": was_probe,
        },
    )
    conn.execute(
        "UPDATE notice SET due_at = NULL, said = %(result)s WHERE ctid = ANY (ARRAY("
        " SELECT n.ctid FROM notice n WHERE n.owner_id = %(owner)s AND n.destination = %(destination)s"
        "  AND n.due_at IS NOT NULL AND n.created_at < clock_timestamp() - %(max_wait)s"
        " LIMIT %(limit)s FOR UPDATE SKIP LOCKED))",
        {
            "result": f"given up after {MAX_WAIT.days} days: {error}"[:_MAX_ERROR_LENGTH],
            "owner": owner_id,
            "destination": destination,
            "max_wait": MAX_WAIT,
            "limit": _GIVE_UP_BATCH_SIZE,
        },
    )


def record_answer(conn: Connection, owner_id: int, destination: str) -> None:
    """Close the breaker of a destination that answered, whatever the answer."""
    conn.execute(
        "DELETE FROM circuit_breaker WHERE owner_id = %s AND destination = %s",
        (_breaker_owner(owner_id, destination), destination),
    )


def list_open_breakers(conn: Connection, limit: int = 20) -> list[OpenBreaker]:
    """List destinations that do not answer: the mail server first, then those that failed the longest."""
    return conn.fetch_all_as(
        OpenBreaker,
        "SELECT o.handle AS owner, b.destination, b.failures, b.failed_since, b.open_until, b.last_error,"
        " (SELECT count(*) FROM (SELECT FROM notice n WHERE n.due_at IS NOT NULL AND n.destination = b.destination"
        "   AND (n.owner_id = b.owner_id OR b.owner_id = %(shared)s) LIMIT 1000) AS capped) AS waiting"
        " FROM circuit_breaker b LEFT JOIN owner o ON o.id = b.owner_id"
        " ORDER BY b.owner_id <> %(shared)s, b.failed_since LIMIT %(limit)s",
        {"shared": _SHARED_OWNER_ID, "limit": limit},
    )


def _breaker_owner(owner_id: int, destination: str) -> int:
    return _SHARED_OWNER_ID if destination == MAIL_SERVER else owner_id
