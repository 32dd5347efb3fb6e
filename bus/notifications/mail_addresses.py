"""E-mail addresses for overdue handoffs: confirmation, digests, limits and unsubscribing.

The service sends what agents wrote only to an address whose holder has opened a mailed link, or to the owner's own. So
it cannot be used to send mail to strangers: an unconfirmed address receives only confirmations and invites
(`invite_mails`), whose text is fixed, and few of those.
Source: docs/decisions/0038-mail-addresses.md
"""

import hashlib
import hmac
import re
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from bus.db import Connection, shared_secret_keys
from bus.errors import BusError
from bus.notifications.tables import MAIL_SERVER
from bus.tenancy import audit

CONFIRMATION_TTL = timedelta(days=7)
DIGEST_INTERVAL = timedelta(minutes=15)
MAX_EMAILS_PER_DAY = 100
"""E-mails of one owner in 24 hours; later posts wait in the digest that follows."""
MAX_POSTS_PER_DIGEST = 50
_CONFIRMATION_PAUSE = timedelta(hours=1)
_MAX_CONFIRMATIONS_PER_OWNER = 10
_MAX_CONFIRMATIONS_PER_ADDRESS = 3
_DAY = timedelta(days=1)
_KEY_NAME = "mail links"
_TOKEN_PATTERN = re.compile(r"([1-9][0-9]{0,17})-([0-9]{1,12})-([A-Za-z0-9_-]{22})")
_CONFIRM, _UNSUBSCRIBE = "confirm", "unsubscribe"


@dataclass(frozen=True, slots=True)
class MailAddress:
    """An address to which an owner sends notifications.

    Attributes:
        confirmed_at: None until its holder has opened the mailed link.
        unsubscribed_at: its holder wants no further mail of this owner.
        requested_at: time of the last confirmation mail.
    """

    id: int
    owner_id: int
    owner: str
    email: str
    confirmed_at: datetime | None
    unsubscribed_at: datetime | None
    requested_at: datetime | None

    @property
    def state(self) -> str:
        """One of `confirmed`, `unsubscribed`, `requested` and `unconfirmed`."""
        if self.unsubscribed_at is not None:
            return "unsubscribed"
        if self.confirmed_at is not None:
            return "confirmed"
        return "unconfirmed" if self.requested_at is None else "requested"


_SELECT = (
    "SELECT a.id, a.owner_id, o.handle AS owner, a.email, a.confirmed_at, a.unsubscribed_at, a.requested_at"
    " FROM mail_address a JOIN owner o ON o.id = a.owner_id"
)


def find(conn: Connection, owner_id: int, email: str) -> MailAddress | None:
    """Return an owner's address, or None if the owner never used it."""
    return conn.fetch_one_or_none_as(
        MailAddress, f"{_SELECT} WHERE a.owner_id = %s AND lower(a.email) = lower(%s)", (owner_id, email)
    )


def register(conn: Connection, owner_id: int, email: str) -> MailAddress:
    """Return the owner's address; add it if it is new. The owner's own address is confirmed.

    It is the address that a sign-in provider verified, or that the operator entered.
    """
    conn.execute(
        "INSERT INTO mail_address (owner_id, email, confirmed_at)"
        " SELECT o.id, %(email)s, CASE WHEN lower(o.email) = lower(%(email)s) THEN clock_timestamp() END"
        " FROM owner o WHERE o.id = %(owner)s ON CONFLICT DO NOTHING",
        {"owner": owner_id, "email": email},
    )
    address = find(conn, owner_id, email)
    assert address is not None
    return address


def request_confirmation(conn: Connection, owner_id: int, email: str, *, actor: str) -> MailAddress:
    """Queue a mail with a confirmation link, unless the address is confirmed.

    Raises:
        BusError: `conflict` if a confirmation was sent within the hour, or too many within a day.
    Locks: the owner, then the address.
    """
    conn.execute("SELECT 1 FROM owner WHERE id = %s FOR NO KEY UPDATE", (owner_id,))
    address = register(conn, owner_id, email)
    if address.state == "confirmed":
        return address
    is_recent, by_owner, to_address = conn.fetch_one(
        "SELECT coalesce(bool_or(requested_at > clock_timestamp() - %(pause)s) FILTER (WHERE id = %(id)s), false),"
        " count(*) FILTER (WHERE owner_id = %(owner)s), count(*) FILTER (WHERE lower(email) = lower(%(email)s))"
        " FROM mail_address WHERE (owner_id = %(owner)s OR lower(email) = lower(%(email)s))"
        "  AND requested_at > clock_timestamp() - %(day)s",
        {"id": address.id, "owner": owner_id, "email": email, "pause": _CONFIRMATION_PAUSE, "day": _DAY},
    )
    if is_recent:
        raise BusError("conflict", "A confirmation was sent within the last hour; look for it, or try again later.")
    if by_owner >= _MAX_CONFIRMATIONS_PER_OWNER or to_address >= _MAX_CONFIRMATIONS_PER_ADDRESS:
        raise BusError("conflict", "Too many confirmations were sent today; try again tomorrow.")
    conn.execute("UPDATE mail_address SET requested_at = clock_timestamp() WHERE id = %s", (address.id,))
    expires = int(time.time() + CONFIRMATION_TTL.total_seconds())
    insert_email(
        conn,
        owner_id,
        "confirm_address",
        address.email,
        {
            "owner": address.owner,
            "confirm_token": _sign(conn, _CONFIRM, address, expires),
            "unsubscribe_token": unsubscribe_token(conn, address),
        },
    )
    audit.record(conn, owner_id, actor, "mail_address.request", address.email)
    return find(conn, owner_id, email) or address


def find_by_confirmation(conn: Connection, token: str) -> MailAddress | None:
    """Return the address that a confirmation link names; None if the link is invalid or has expired."""
    return _find_by_token(conn, _CONFIRM, token)


def find_by_unsubscription(conn: Connection, token: str) -> MailAddress | None:
    """Return the address that an unsubscribe link names; None if the link is invalid. It does not expire."""
    return _find_by_token(conn, _UNSUBSCRIBE, token)


def confirm(conn: Connection, address: MailAddress) -> None:
    """Record that the holder of an address wants its mail; of several calls the first is audited."""
    changed = conn.execute(
        "UPDATE mail_address SET confirmed_at = clock_timestamp(), unsubscribed_at = NULL"
        " WHERE id = %s AND (confirmed_at IS NULL OR unsubscribed_at IS NOT NULL)",
        (address.id,),
    )
    if changed:
        audit.record(conn, address.owner_id, "mail link", "mail_address.confirm", address.email)


def unsubscribe(conn: Connection, address: MailAddress) -> None:
    """Send nothing more to an address; what waits for it is given up."""
    changed = conn.execute(
        "UPDATE mail_address SET unsubscribed_at = clock_timestamp(), confirmed_at = NULL"
        " WHERE id = %s AND unsubscribed_at IS NULL",
        (address.id,),
    )
    conn.execute(
        "UPDATE notice SET due_at = NULL, said = 'the address was unsubscribed'"
        " WHERE owner_id = %s AND lower(target) = lower(%s) AND destination = %s AND due_at IS NOT NULL"
        " AND kind IN ('escalation', 'invite')",
        (address.owner_id, address.email, MAIL_SERVER),
    )
    if changed:
        audit.record(conn, address.owner_id, "mail link", "mail_address.unsubscribe", address.email)


def add_to_digest(conn: Connection, owner_id: int, email: str, post: dict[str, Any]) -> bool:
    """Add an overdue post to the next digest for an address; return whether its holder is notified.

    The first post is sent at once, further ones together, at most one e-mail in DIGEST_INTERVAL and MAX_EMAILS_PER_DAY
    for an owner. An unconfirmed address that was never asked gets the confirmation instead.

    Locks: the owner while a confirmation is requested; otherwise the address, then the waiting digest.
    """
    address = register(conn, owner_id, email)
    if address.state == "unconfirmed":
        try:
            request_confirmation(conn, owner_id, email, actor="bus")
        except BusError:
            return False
    if address.state != "confirmed":
        return False
    # Serialises the projects of an owner, which share the digest.
    (next_digest_at,) = conn.fetch_one(
        "SELECT next_digest_at FROM mail_address WHERE id = %s FOR UPDATE", (address.id,)
    )
    appended = conn.execute(
        "UPDATE notice SET content = CASE WHEN jsonb_array_length(content->'posts') < %(maximum)s"
        "  THEN jsonb_set(content, '{posts}', (content->'posts') || %(posts)s)"
        "  ELSE jsonb_set(content, '{more}', to_jsonb((content->>'more')::integer + 1)) END"
        " WHERE id = (SELECT max(n.id) FROM notice n WHERE n.owner_id = %(owner)s AND n.destination = %(mail_server)s"
        "   AND n.due_at IS NOT NULL AND n.kind = 'escalation' AND n.target = %(target)s AND n.content ? 'posts')"
        # A worker may have taken it meanwhile.
        " AND attempts = 0 AND due_at IS NOT NULL",
        {
            "maximum": MAX_POSTS_PER_DIGEST,
            "posts": Jsonb([post]),
            "owner": owner_id,
            "mail_server": MAIL_SERVER,
            "target": address.email,
        },
    )
    if appended:
        return True
    content = {"posts": [post], "more": 0, "unsubscribe_token": unsubscribe_token(conn, address)}
    notice_id = insert_email(conn, owner_id, "escalation", address.email, content)
    conn.execute(
        "WITH due AS (SELECT greatest(clock_timestamp(), %(next)s::timestamptz, %(day)s + ("
        "   SELECT n.created_at FROM notice n WHERE n.owner_id = %(owner)s AND n.channel = 'email'"
        "    AND n.created_at > clock_timestamp() - %(day)s AND n.id <> %(id)s"
        "   ORDER BY n.created_at DESC OFFSET %(maximum)s LIMIT 1)) AS at),"
        " scheduled AS (UPDATE notice SET due_at = due.at FROM due WHERE id = %(id)s)"
        " UPDATE mail_address SET next_digest_at = due.at + %(interval)s FROM due WHERE id = %(address)s",
        {
            "next": next_digest_at,
            "owner": owner_id,
            "id": notice_id,
            "day": _DAY,
            "maximum": MAX_EMAILS_PER_DAY - 1,
            "interval": DIGEST_INTERVAL,
            "address": address.id,
        },
    )
    return True


def unsubscribe_token(conn: Connection, address: MailAddress) -> str:
    """Return the token of the link that ends the mail of an owner to an address."""
    return _sign(conn, _UNSUBSCRIBE, address, 0)


def insert_email(
    conn: Connection, owner_id: int, kind: str, target: str, content: dict[str, Any], *, project_id: int | None = None
) -> int:
    """Queue one e-mail and return its id; the caller has checked consent and limits."""
    (notice_id,) = conn.fetch_one(
        "INSERT INTO notice (owner_id, project_id, kind, channel, target, destination, content)"
        " VALUES (%s, %s, %s, 'email', %s, %s, %s) RETURNING id",
        (owner_id, project_id, kind, target, MAIL_SERVER, Jsonb(content)),
    )
    return int(notice_id)


def _sign(conn: Connection, purpose: str, address: MailAddress, expires: int) -> str:
    """Return the token of a link: id and expiry with a signature, so that nothing has to be stored."""
    key = shared_secret_keys.get_or_create_key(conn, _KEY_NAME)
    signed = f"{purpose} {address.id} {expires} {address.email.lower()}".encode()
    signature = urlsafe_b64encode(hmac.digest(key, signed, hashlib.sha256)[:16]).rstrip(b"=").decode()
    return f"{address.id}-{expires}-{signature}"


def _find_by_token(conn: Connection, purpose: str, token: str) -> MailAddress | None:
    match = _TOKEN_PATTERN.fullmatch(token)
    if match is None:
        return None
    expires = int(match[2])
    address = conn.fetch_one_or_none_as(MailAddress, f"{_SELECT} WHERE a.id = %s", (int(match[1]),))
    if address is None or not hmac.compare_digest(_sign(conn, purpose, address, expires), token):
        return None
    return None if expires and expires < time.time() else address
