"""E-mails with the link of an invite for a person.

The outbox holds no code: each attempt to send gives the invite a new code, of which only the SHA-256 is stored, beside
the one that the page showed. The text is ours; of the giver it has handle and name of the project. Caps for an owner
and for an address keep the service from being a relay.
Source: docs/decisions/0051-people-in-a-project.md
"""

import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

from bus.db import Connection
from bus.errors import NotFound
from bus.notifications import mail_addresses, outbox
from bus.notifications.outbox import OutboxMessage
from bus.rules import token_format

KIND = "invite"
MAX_PER_OWNER = 20
"""E-mails with invites that one owner sends in 24 hours."""
MAX_PER_ADDRESS = 3
"""E-mails with invites that one address gets in 24 hours, from all owners together."""
_DAY = timedelta(days=1)

QueueResult = Literal["queued", "limit", "unsubscribed"]


def queue(conn: Connection, project_id: int, invite_id: int, *, giver_id: int) -> QueueResult:
    """Queue the e-mail of an invite for a person with one address; call it in the transaction that creates the invite.

    Args:
        giver_id: the owner who invites, on whom the caps and the wish of the address's holder apply.
    Returns:
        `queued`; `limit` if owner or address had too many today; `unsubscribed` if the holder of the address wants no
        mail of this owner. Only `queued` sends anything.
    Raises:
        BusError: `not_found` when the project has no such invite with an address.
    Locks: the address, until the end of the transaction. The caller has locked the giver.
    """
    row = conn.fetch_one_or_none(
        "SELECT email FROM invite WHERE id = %s AND project_id = %s AND role IS NOT NULL AND email IS NOT NULL",
        (invite_id, project_id),
    )
    if row is None:
        raise NotFound("invite")
    (email,) = row
    # Of all owners: they count the mails to an address in turn.
    conn.execute("SELECT pg_advisory_xact_lock(hashtextextended('invite mail ' || lower(%s), 0))", (email,))
    address = mail_addresses.register(conn, giver_id, email)
    if address.state == "unsubscribed":
        return "unsubscribed"
    invites_of_owner, emails_of_owner = conn.fetch_one(
        "SELECT count(*) FILTER (WHERE kind = %(kind)s), count(*) FROM notice"
        " WHERE owner_id = %(owner)s AND channel = 'email' AND created_at > clock_timestamp() - %(day)s",
        {"kind": KIND, "owner": giver_id, "day": _DAY},
    )
    (to_address,) = conn.fetch_one(
        # The kind is a literal, as in the condition of the index.
        "SELECT count(*) FROM notice WHERE kind = 'invite' AND lower(target) = lower(%s)"
        " AND created_at > clock_timestamp() - %s",
        (email, _DAY),
    )
    if (
        invites_of_owner >= MAX_PER_OWNER
        or emails_of_owner >= mail_addresses.MAX_EMAILS_PER_DAY
        or to_address >= MAX_PER_ADDRESS
    ):
        return "limit"
    mail_id = mail_addresses.insert_email(
        conn,
        giver_id,
        KIND,
        email,
        {"invite_id": invite_id, "unsubscribe_token": mail_addresses.unsubscribe_token(conn, address)},
        project_id=project_id,
    )
    conn.execute("UPDATE invite SET mail_id = %s WHERE id = %s", (mail_id, invite_id))
    return "queued"


def prepare(conn: Connection, message: OutboxMessage) -> OutboxMessage | None:
    """Return the message of an invite as it is to be sent, with a new code; None if the invite can not be used now.

    A message that is given up here is recorded so. Of two attempts, the code of the later one works.

    Locks: the invite.
    """
    code = token_format.generate_invite_code()
    row = conn.fetch_one_or_none(
        "UPDATE invite i SET mailed_sha256 = %(sha256)s FROM project p, owner host, owner giver"
        " WHERE i.id = %(invite)s AND i.mail_id = %(mail)s AND p.id = i.project_id AND host.id = p.owner_id"
        "  AND giver.id = %(giver)s AND i.revoked_at IS NULL AND i.used < i.uses"
        "  AND i.expires_at > clock_timestamp()"
        "  AND bus_may_still_invite(i.created_by_participation_id, i.created_by_token_id)"
        "  AND p.archived_at IS NULL AND p.purging_at IS NULL AND host.suspended_at IS NULL"
        " RETURNING giver.handle, p.name, host.handle, i.role, i.expires_at",
        {
            "sha256": token_format.fingerprint(code),
            "invite": message.content["invite_id"],
            "mail": message.id,
            "giver": message.owner_id,
        },
    )
    if row is None:
        outbox.give_up(conn, message.id, "the invite is no longer open")
        return None
    giver, project, project_owner, role, expires_at = row
    content = {
        **message.content,
        "code": code,
        "giver": giver,
        "project": project,
        "project_owner": project_owner,
        "role": role,
        "expires_at": expires_at.isoformat(),
    }
    return dataclasses.replace(message, content=content)


def find_states(conn: Connection, project_id: int, invite_ids: Sequence[int]) -> dict[int, str]:
    """Return the state of the e-mail of each of these invites that has one: `waiting`, `delivered` or `given up`."""
    return dict(
        conn.fetch_all(
            "SELECT i.id, CASE WHEN n.delivered_at IS NOT NULL THEN 'delivered'"
            "  WHEN n.due_at IS NULL THEN 'given up' ELSE 'waiting' END"
            " FROM invite i JOIN notice n ON n.id = i.mail_id"
            " WHERE i.project_id = %s AND i.id = ANY (%s)",
            (project_id, list(invite_ids)),
        )
    )
