"""Notices: what is told to people outside of the bus, by webhook and by e-mail, and the log of telling it.

A notice is written in the transaction of what it speaks of. A worker takes it, tells it and settles it; one that dies
in between leaves it to be told again, so a receiver may hear a notice twice and knows it by its id.
"""

import secrets
from base64 import b64encode
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from psycopg.types.json import Jsonb

from bus.db import Connection
from bus.errors import BusError, InvalidArgument, NotFound
from bus.rules import validation
from bus.tenancy import audit

# How long after each attempt the next one comes; after the last the notice is given up.
RETRY_DELAYS_SECONDS = (10, 60, 300, 1800, 7200, 21_600, 86_400)
_MAX_URL_LENGTH = 2000
_MAX_WEBHOOKS = 10
_SECRET_BYTES = 24


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where notices go: of a project its escalations, with no project an owner's credit notices."""

    id: int
    project_id: int | None
    url: str
    created_at: datetime
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice that a worker has taken, to tell it now.

    Attributes:
        target: the webhook's URL or the e-mail address.
        secret: what the webhook's messages are signed with; empty for e-mail, and where the webhook is gone.
        attempts: how often it was tried, this time included.
    """

    id: int
    kind: str
    channel: str
    target: str
    content: dict[str, Any]
    created_at: datetime
    attempts: int
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A notice as its owner sees it; `said` is what the last attempt met."""

    id: int
    kind: str
    channel: str
    target: str
    created_at: datetime
    attempts: int
    delivered_at: datetime | None
    due_at: datetime | None
    said: str | None

    @property
    def state(self) -> str:
        """delivered, waiting or given up."""
        if self.delivered_at is not None:
            return "delivered"
        return "given up" if self.due_at is None else "waiting"


def add_webhook(conn: Connection, owner_id: int, url: str, *, project_id: int | None = None, actor: str) -> Webhook:
    """Send notices to an address from now on.

    Args:
        url: http or https, at most 2,000 characters, without credentials. Whether it leads to a private network is
            asked each time that something is sent there.
    Returns:
        The webhook with its secret, which signs each message (Standard Webhooks).
    Raises:
        InvalidArgument: the address is not one.
        BusError: `conflict` when there are ten already.
    Locks: the owner.
    """
    address = _validate_url(url)
    conn.execute("SELECT 1 FROM owner WHERE id = %s FOR NO KEY UPDATE", (owner_id,))
    (count,) = conn.fetch_one(
        "SELECT count(*) FROM webhook WHERE owner_id = %s AND project_id IS NOT DISTINCT FROM %s"
        " AND removed_at IS NULL",
        (owner_id, project_id),
    )
    if count >= _MAX_WEBHOOKS:
        raise BusError("conflict", f"There are {count} webhooks already; remove one first.")
    row = conn.fetch_one(
        "INSERT INTO webhook (owner_id, project_id, url, secret) VALUES (%s, %s, %s, %s)"
        " RETURNING id, project_id, url, created_at, secret",
        (owner_id, project_id, address, f"whsec_{b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()}"),
    )
    audit.record(conn, owner_id, actor, "webhook.add", address, project_id=project_id)
    return Webhook(*row)


def remove_webhook(conn: Connection, owner_id: int, webhook_id: int, *, actor: str) -> None:
    """Send nothing there any more; what was not told yet is given up.

    Raises:
        BusError: `not_found` when the owner has no such webhook.
    """
    row = conn.fetch_one_or_none(
        "UPDATE webhook SET removed_at = clock_timestamp() WHERE id = %s AND owner_id = %s AND removed_at IS NULL"
        " RETURNING url, project_id",
        (webhook_id, owner_id),
    )
    if row is None:
        raise NotFound("webhook")
    conn.execute(
        "UPDATE notice SET due_at = NULL, said = 'the webhook was removed'"
        " WHERE webhook_id = %s AND due_at IS NOT NULL",
        (webhook_id,),
    )
    audit.record(conn, owner_id, actor, "webhook.remove", row[0], project_id=row[1])


def list_webhooks(conn: Connection, owner_id: int, *, project_id: int | None = None) -> list[Webhook]:
    """Webhooks of a project, or with no project those for an owner's credit notices; oldest first, at most ten."""
    rows = conn.fetch_all(
        "SELECT id, project_id, url, created_at, secret FROM webhook"
        " WHERE owner_id = %s AND project_id IS NOT DISTINCT FROM %s AND removed_at IS NULL ORDER BY id LIMIT %s",
        (owner_id, project_id, _MAX_WEBHOOKS),
    )
    return [Webhook(*row) for row in rows]


def enqueue(
    conn: Connection,
    kind: str,
    *,
    owner_id: int,
    project_id: int | None = None,
    email: str | None = None,
    **content: Any,
) -> int:
    """Write a notice for each webhook that wants it and for the e-mail address, if any; returns how many."""
    hooks = list_webhooks(conn, owner_id, project_id=project_id)
    targets: list[tuple[str, int | None, str]] = [("webhook", hook.id, hook.url) for hook in hooks]
    if email is not None:
        targets.append(("email", None, email))
    for channel, webhook_id, target in targets:
        conn.execute(
            "INSERT INTO notice (owner_id, project_id, kind, channel, webhook_id, target, content)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (owner_id, project_id, kind, channel, webhook_id, target, Jsonb(content)),
        )
    return len(targets)


def take_due(conn: Connection, limit: int = 50) -> list[Notice]:
    """Take notices that are due. Each counts as tried from here on, and comes again after its pause if not settled.

    Locks: the notices, and waits for none.
    """
    rows = conn.fetch_all(
        "WITH due AS (SELECT n.id FROM notice n WHERE n.due_at <= clock_timestamp() ORDER BY n.due_at, n.id"
        "  LIMIT %(limit)s FOR UPDATE SKIP LOCKED)"
        " UPDATE notice n SET attempts = n.attempts + 1, due_at = clock_timestamp()"
        "  + make_interval(secs => (%(pauses)s::integer[])[least(n.attempts + 1, cardinality(%(pauses)s::integer[]))])"
        " FROM due WHERE n.id = due.id"
        " RETURNING n.id, n.kind, n.channel, n.target, n.content, n.created_at, n.attempts,"
        "  coalesce((SELECT h.secret FROM webhook h WHERE h.id = n.webhook_id"
        "   AND h.removed_at IS NULL), '')",
        {"limit": limit, "pauses": list(RETRY_DELAYS_SECONDS)},
    )
    return [Notice(*row) for row in sorted(rows)]


def record_attempt(conn: Connection, notice: Notice, *, delivered: bool, result: str, permanent: bool = False) -> None:
    """Write down what an attempt met.

    Args:
        said: the receiver's answer or what went wrong, in short.
        final: trying again would not help.
    """
    over = delivered or permanent or notice.attempts > len(RETRY_DELAYS_SECONDS)
    conn.execute(
        "UPDATE notice SET said = %(said)s, delivered_at = CASE WHEN %(delivered)s THEN clock_timestamp() END,"
        " due_at = CASE WHEN %(over)s THEN NULL ELSE due_at END WHERE id = %(id)s AND delivered_at IS NULL",
        {"said": result[:500], "delivered": delivered, "over": over, "id": notice.id},
    )


def list_log_entries(
    conn: Connection, owner_id: int, *, project_id: int | None = None, before: int | None = None, limit: int = 50
) -> list[LogEntry]:
    """An owner's notices, newest first; with a project only its own."""
    validation.integer(limit, "limit", 1, 200)
    rows = conn.fetch_all(
        "SELECT id, kind, channel, target, created_at, attempts, delivered_at, due_at, said FROM notice"
        " WHERE owner_id = %(owner)s AND (%(project)s::bigint IS NULL OR project_id = %(project)s)"
        " AND (%(before)s::bigint IS NULL OR id < %(before)s) ORDER BY id DESC LIMIT %(limit)s",
        {"owner": owner_id, "project": project_id, "before": before, "limit": limit},
    )
    return [LogEntry(*row) for row in rows]


def _validate_url(url: str) -> str:
    validation.free_text(url, "url", _MAX_URL_LENGTH)
    try:
        parts = urlsplit(url.strip())
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
        _ = parts.port
    except ValueError:
        good = False
    if not good or any(character.isspace() for character in url.strip()):
        raise InvalidArgument(
            "url must be an http or https address without a user name, such as https://example.org/x."
        )
    return url.strip()
