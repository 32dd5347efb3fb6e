"""Outbox: webhooks and e-mails that wait for delivery, with the log of their attempts.

`enqueue` writes a message in the transaction of the change that it reports. A worker takes due messages with
`take_due`, delivers them and calls `record_attempt`. If the worker dies in between, the message is delivered again: a
receiver may get it twice and recognises it by its id.
"""

import secrets
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from psycopg.types.json import Jsonb

from bus.db import Connection
from bus.errors import BusError, InvalidArgument, NotFound
from bus.notifications import circuit_breaker
from bus.notifications.tables import MAIL_SERVER
from bus.rules import validation
from bus.tenancy import audit
from bus.tenancy.suspension import require_active_owner

# Delay after each failed attempt; after the last one the message is given up.
RETRY_DELAYS_SECONDS = (10, 60, 300, 1800, 7200, 21_600, 86_400)
_MAX_URL_LENGTH = 2000
_MAX_RESULT_LENGTH = 500
_MAX_WEBHOOKS = 10
_SECRET_BYTES = 24


@dataclass(frozen=True, slots=True)
class Webhook:
    """Target of a project's escalations or, with no project, of an owner's credit messages."""

    id: int
    project_id: int | None
    url: str
    created_at: datetime
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """A message that a worker has taken for delivery.

    Attributes:
        channel: `webhook` or `email`.
        target: the webhook's URL or the e-mail address.
        attempts: number of attempts, this one included.
        secret: signs the messages of the webhook; empty for e-mail and for a removed webhook.
        destination: see `circuit_breaker`.
        is_probe: the destination did not answer before; this message shows whether it does now.
    """

    id: int
    kind: str
    channel: str
    target: str
    content: dict[str, Any]
    created_at: datetime
    attempts: int
    secret: str = field(repr=False)
    owner_id: int = 0
    destination: str = ""
    is_probe: bool = False


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A message as its owner sees it.

    Attributes:
        due_at: time of the next attempt; None once the message was delivered or given up.
        last_result: the receiver's answer or the error of the last attempt.
    """

    id: int
    kind: str
    channel: str
    target: str
    created_at: datetime
    attempts: int
    delivered_at: datetime | None
    due_at: datetime | None
    last_result: str | None

    @property
    def state(self) -> str:
        """One of `delivered`, `waiting` and `given up`."""
        if self.delivered_at is not None:
            return "delivered"
        return "given up" if self.due_at is None else "waiting"


_WEBHOOK_COLUMNS = "id, project_id, url, created_at, secret"


def add_webhook(conn: Connection, owner_id: int, url: str, *, project_id: int | None = None, actor: str) -> Webhook:
    """Send messages to a URL from now on.

    Args:
        url: http or https, at most 2,000 characters, without credentials. Whether it leads to a private network is
            checked at each delivery.
        project_id: send the escalations of this project; None sends the owner's credit messages.
    Returns:
        The webhook with its secret, which signs each message (Standard Webhooks).
    Raises:
        InvalidArgument: the URL is malformed.
        BusError: `conflict` if there are ten webhooks already.
        OwnerSuspended: the owner is suspended.
    Locks: the owner.
    """
    valid_url = _validate_url(url)
    conn.execute("SELECT 1 FROM owner WHERE id = %s FOR NO KEY UPDATE", (owner_id,))
    require_active_owner(conn, owner_id)
    (count,) = conn.fetch_one(
        "SELECT count(*) FROM webhook WHERE owner_id = %s AND project_id IS NOT DISTINCT FROM %s"
        " AND removed_at IS NULL",
        (owner_id, project_id),
    )
    if count >= _MAX_WEBHOOKS:
        raise BusError("conflict", f"There are {count} webhooks already; remove one first.")
    webhook = conn.fetch_one_as(
        Webhook,
        f"INSERT INTO webhook (owner_id, project_id, url, secret) VALUES (%s, %s, %s, %s) RETURNING {_WEBHOOK_COLUMNS}",
        (owner_id, project_id, valid_url, f"whsec_{b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()}"),
    )
    audit.record(conn, owner_id, actor, "webhook.add", valid_url, project_id=project_id)
    return webhook


def remove_webhook(conn: Connection, owner_id: int, webhook_id: int, *, actor: str) -> None:
    """Stop sending messages to a webhook; undelivered ones are given up.

    Raises:
        NotFound: the owner has no such webhook.
    """
    row = conn.fetch_one_or_none(
        "UPDATE webhook SET removed_at = clock_timestamp() WHERE id = %s AND owner_id = %s AND removed_at IS NULL"
        " RETURNING url, project_id",
        (webhook_id, owner_id),
    )
    if row is None:
        raise NotFound("webhook")
    url, project_id = row
    conn.execute(
        "UPDATE notice SET due_at = NULL, said = 'the webhook was removed'"
        " WHERE webhook_id = %s AND due_at IS NOT NULL",
        (webhook_id,),
    )
    audit.record(conn, owner_id, actor, "webhook.remove", url, project_id=project_id)


def give_up_messages_of_project(conn: Connection, owner_id: int, project_id: int) -> None:
    """Give up the undelivered messages of a project that is being deleted."""
    conn.execute(
        "UPDATE notice SET due_at = NULL, said = 'the project was deleted'"
        " WHERE owner_id = %s AND project_id = %s AND due_at IS NOT NULL",
        (owner_id, project_id),
    )


def list_webhooks(conn: Connection, owner_id: int, *, project_id: int | None = None) -> list[Webhook]:
    """Return a project's webhooks or, with no project, those for credit messages; oldest first, at most ten."""
    return conn.fetch_all_as(
        Webhook,
        f"SELECT {_WEBHOOK_COLUMNS} FROM webhook"
        " WHERE owner_id = %s AND project_id IS NOT DISTINCT FROM %s AND removed_at IS NULL ORDER BY id LIMIT %s",
        (owner_id, project_id, _MAX_WEBHOOKS),
    )


def enqueue(
    conn: Connection,
    kind: str,
    *,
    owner_id: int,
    project_id: int | None = None,
    email: str | None = None,
    **content: Any,
) -> int:
    """Queue a message for each webhook of the project (or owner) and for the e-mail address, if any.

    Args:
        kind: one of MESSAGE_KINDS (bus/notifications/tables.py).
        content: JSON-serialisable facts of the message.
    Returns:
        The number of messages queued.
    """
    webhooks = list_webhooks(conn, owner_id, project_id=project_id)
    targets: list[tuple[str, int | None, str, str]] = [
        ("webhook", webhook.id, webhook.url, circuit_breaker.webhook_destination(webhook.url)) for webhook in webhooks
    ]
    if email is not None:
        targets.append(("email", None, email, MAIL_SERVER))
    for channel, webhook_id, target, destination in targets:
        conn.execute(
            "INSERT INTO notice (owner_id, project_id, kind, channel, webhook_id, target, destination, content)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            (owner_id, project_id, kind, channel, webhook_id, target, destination, Jsonb(content)),
        )
    return len(targets)


def take_due(
    conn: Connection,
    limit: int = 50,
    *,
    channel: str | None = None,
    per_destination: int | None = None,
    in_flight: Mapping[tuple[int, str], int] = MappingProxyType({}),
    after_owner: int = 0,
) -> list[OutboxMessage]:
    """Take due messages for delivery; each counts as attempted and is due again after its retry delay.

    Owners take turns: a first message of each owner goes before any second one. A destination whose circuit breaker is
    open gets nothing, and one whose pause is over gets one message as a probe.

    Args:
        channel: take only webhooks or only e-mails.
        per_destination: messages that may be under way to one destination of an owner; default: `limit`.
        in_flight: messages that are under way, by owner and destination; their owners come later.
        after_owner: the owner who had the last turn.
    Returns:
        The messages by id.
    Locks: the messages; skips those that another worker has locked.
    """
    busy = sorted(in_flight.items())
    messages = conn.fetch_all_as(
        OutboxMessage,
        _TAKE_DUE_SQL,
        {
            "limit": limit,
            "per_destination": limit if per_destination is None else per_destination,
            "channel": channel,
            "mail_server": MAIL_SERVER,
            "busy_owners": [owner_id for (owner_id, _), _ in busy],
            "busy_destinations": [destination for (_, destination), _ in busy],
            "busy_counts": [count for _, count in busy],
            "after": after_owner,
            "delays": list(RETRY_DELAYS_SECONDS),
        },
    )
    probes = [message for message in messages if message.is_probe]
    if probes:
        conn.execute(
            "UPDATE circuit_breaker b SET open_until = clock_timestamp() + make_interval(secs => %s)"
            " FROM unnest(%s::bigint[], %s::text[]) AS probe (owner_id, destination)"
            f" WHERE b.owner_id = {circuit_breaker.breaker_owner_sql('probe.owner_id', 'probe.destination')}"
            "  AND b.destination = probe.destination",
            (
                circuit_breaker.PROBE_TIMEOUT_SECONDS,
                [probe.owner_id for probe in probes],
                [probe.destination for probe in probes],
            ),
        )
    return sorted(messages, key=lambda message: message.id)


# `pair` steps through the index from one owner and destination to the next, so that the cost does not grow with the
# number of messages that wait for one destination.
_TAKE_DUE_SQL = f"""
WITH RECURSIVE pair AS (
  (SELECT n.owner_id, n.destination FROM notice n WHERE n.due_at IS NOT NULL
   ORDER BY n.owner_id, n.destination LIMIT 1)
  UNION ALL
  SELECT following.owner_id, following.destination FROM pair p CROSS JOIN LATERAL (
    SELECT n.owner_id, n.destination FROM notice n
    WHERE n.due_at IS NOT NULL AND (n.owner_id, n.destination) > (p.owner_id, p.destination)
    ORDER BY n.owner_id, n.destination LIMIT 1) AS following
), busy AS (
  SELECT * FROM unnest(%(busy_owners)s::bigint[], %(busy_destinations)s::text[], %(busy_counts)s::bigint[])
    AS entry (owner_id, destination, count)
), ready AS (
  SELECT p.owner_id, p.destination, b.failures IS NOT NULL AS is_probe,
    {circuit_breaker.breaker_owner_sql("p.owner_id", "p.destination")} AS breaker_owner,
    %(per_destination)s - coalesce((SELECT sum(y.count) FROM busy y
      WHERE y.owner_id = p.owner_id AND y.destination = p.destination), 0) AS allowance,
    coalesce((SELECT sum(y.count) FROM busy y WHERE y.owner_id = p.owner_id), 0) AS owner_in_flight
  FROM pair p LEFT JOIN circuit_breaker b ON b.destination = p.destination
    AND b.owner_id = {circuit_breaker.breaker_owner_sql("p.owner_id", "p.destination")}
  WHERE (b.open_until IS NULL OR b.open_until <= clock_timestamp())
    AND (%(channel)s::text IS NULL OR (%(channel)s = 'email') = (p.destination = %(mail_server)s))
), candidate AS (
  SELECT r.owner_id, r.is_probe, m.id,
    r.owner_in_flight + row_number() OVER (PARTITION BY r.owner_id ORDER BY m.due_at, m.id) AS turn,
    row_number() OVER (PARTITION BY r.breaker_owner, r.destination ORDER BY m.due_at, m.id) AS destination_turn
  FROM ready r CROSS JOIN LATERAL (
    SELECT n.id, n.due_at FROM notice n
    WHERE n.owner_id = r.owner_id AND n.destination = r.destination AND n.due_at <= clock_timestamp()
    ORDER BY n.due_at, n.id LIMIT greatest(r.allowance, 0) FOR UPDATE SKIP LOCKED) AS m
), chosen AS (
  SELECT id, is_probe FROM candidate WHERE NOT is_probe OR destination_turn = 1
  ORDER BY turn, owner_id <= %(after)s, owner_id LIMIT %(limit)s
)
UPDATE notice n SET attempts = n.attempts + 1, due_at = clock_timestamp()
  + make_interval(secs => (%(delays)s::integer[])[least(n.attempts + 1, cardinality(%(delays)s::integer[]))])
FROM chosen WHERE n.id = chosen.id
RETURNING n.id, n.kind, n.channel, n.target, n.content, n.created_at, n.attempts, n.owner_id, n.destination,
  chosen.is_probe,
  coalesce((SELECT w.secret FROM webhook w WHERE w.id = n.webhook_id AND w.removed_at IS NULL), '') AS secret
"""


def record_attempt(
    conn: Connection,
    message: OutboxMessage,
    *,
    delivered: bool,
    result: str,
    permanent: bool = False,
    unreachable: bool = False,
) -> None:
    """Record the result of a delivery attempt, and open or close the circuit breaker of the destination.

    Args:
        result: the receiver's answer or the error; the first 500 characters are stored.
        permanent: the error is permanent, so the message is given up.
        unreachable: the destination did not answer, so its other messages wait too.
    """
    is_finished = delivered or permanent or message.attempts > len(RETRY_DELAYS_SECONDS)
    conn.execute(
        "UPDATE notice SET said = %(result)s, delivered_at = CASE WHEN %(delivered)s THEN clock_timestamp() END,"
        " due_at = CASE WHEN %(finished)s THEN NULL ELSE due_at END WHERE id = %(id)s AND delivered_at IS NULL",
        {
            "result": result[:_MAX_RESULT_LENGTH],
            "delivered": delivered,
            "finished": is_finished,
            "id": message.id,
        },
    )
    if unreachable:
        circuit_breaker.record_failure(conn, message.owner_id, message.destination, result, was_probe=message.is_probe)
    else:
        circuit_breaker.record_answer(conn, message.owner_id, message.destination)


def give_up(conn: Connection, message_id: int, reason: str) -> None:
    """Give up a message that was taken for delivery and must not be sent; its destination was not asked."""
    conn.execute(
        "UPDATE notice SET due_at = NULL, said = %s WHERE id = %s AND due_at IS NOT NULL", (reason, message_id)
    )


def list_log_entries(
    conn: Connection, owner_id: int, *, project_id: int | None = None, before: int | None = None, limit: int = 50
) -> list[LogEntry]:
    """Return an owner's messages with ids below `before`, newest first; with a project only its own."""
    validation.integer(limit, "limit", 1, 200)
    return conn.fetch_all_as(
        LogEntry,
        "SELECT id, kind, channel, target, created_at, attempts, delivered_at, due_at, said AS last_result FROM notice"
        " WHERE owner_id = %(owner)s AND (%(project)s::bigint IS NULL OR project_id = %(project)s)"
        " AND (%(before)s::bigint IS NULL OR id < %(before)s) ORDER BY id DESC LIMIT %(limit)s",
        {"owner": owner_id, "project": project_id, "before": before, "limit": limit},
    )


def _validate_url(url: str) -> str:
    validation.free_text(url, "url", _MAX_URL_LENGTH)
    try:
        parts = urlsplit(url.strip())
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
        _ = parts.port
    except ValueError:
        is_valid = False
    if not is_valid or any(character.isspace() for character in url.strip()):
        raise InvalidArgument(
            "url must be an http or https address without a user name, such as https://example.org/x."
        )
    return url.strip()
