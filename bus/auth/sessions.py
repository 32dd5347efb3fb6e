"""Sessions: browsers in which an owner is signed in. The browser holds a random token, the database its SHA-256."""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from bus.auth.tables import session
from bus.db import Connection
from bus.rules.token_format import fingerprint
from bus.tenancy import audit
from bus.tenancy.owners import Owner
from bus.tenancy.tables import owner

_TOKEN_BYTES = 32
# Two are shown apart by their first words; a browser that sends pages of text about itself is cut.
_MAX_USER_AGENT_LENGTH = 200
_MAX_SESSIONS = 100
PROXY_METHOD = "proxy"
"""What the method of a session begins with that lasts only as long as the proxy in front vouches for its owner."""


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that is signed in.

    Attributes:
        method: how it signed in: a provider's name, `link` or `header`.
        address, agent: where it signed in from and what the browser calls itself.
        authenticated_ago: since somebody last showed here who they are; None where only a proxy said so.
    """

    id: int
    owner: Owner
    method: str
    ip_address: str
    user_agent: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    time_since_authentication: timedelta | None


# The look of every request, in one statement that writes at most once a minute for each session.
_FIND_SESSION_SQL = """
WITH found AS (
    SELECT s.id, s.method, s.address, s.agent, s.created_at, s.last_used_at, s.expires_at,
           clock_timestamp() - s.authenticated_at AS authenticated_ago,
           o.id AS owner_id, o.email, o.handle, o.operator, o.created_at AS owner_since, o.suspended_at
    FROM session s JOIN owner o ON o.id = s.owner_id
    WHERE s.sha256 = %(sha256)s AND s.expires_at > clock_timestamp()
      AND s.last_used_at > clock_timestamp() - %(idle)s
), touched AS (
    UPDATE session SET last_used_at = clock_timestamp()
    WHERE id = (SELECT id FROM found WHERE last_used_at < clock_timestamp() - interval '1 minute')
)
SELECT id, method, address, agent, created_at, last_used_at, expires_at, authenticated_ago,
       owner_id, email, handle, operator, owner_since, suspended_at
FROM found
"""

_KEEP_ALIVE_SQL = """
WITH found AS (
    SELECT s.id, s.last_used_at FROM session s
    WHERE s.id = ANY (%(ids)s) AND s.expires_at > clock_timestamp() AND s.last_used_at > clock_timestamp() - %(idle)s
), touched AS (
    UPDATE session SET last_used_at = clock_timestamp() WHERE id = ANY (ARRAY(
        SELECT id FROM found WHERE last_used_at < clock_timestamp() - interval '1 minute' ORDER BY id))
)
SELECT id FROM found
"""


def open_session(
    conn: Connection,
    owner_id: int,
    *,
    method: str,
    ttl: timedelta,
    ip_address: str = "",
    user_agent: str = "",
    authenticated: bool = True,
    authenticated_at: datetime | None = None,
) -> str:
    """Sign a browser in.

    Args:
        lasts: after which the session is over, used or not.
        authenticated: whether somebody showed who they are, as opposed to a proxy that says so with every request.
        authenticated_at: when, if it was not now; a time to come counts as now.
    Returns:
        The token for its cookie; nothing else ever shows it.
    """
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    clock = sa.func.clock_timestamp()
    conn.execute(
        sa.insert(session).values(
            owner_id=owner_id,
            sha256=fingerprint(token),
            method=method,
            address=ip_address,
            agent=_clean_user_agent(user_agent),
            expires_at=clock + ttl,
            authenticated_at=sa.func.least(clock, authenticated_at) if authenticated else None,
        )
    )
    handle = conn.execute(sa.select(owner.c.handle).where(owner.c.id == owner_id)).scalar_one()
    audit.record(conn, owner_id, handle, "session.open", handle, method=method, address=ip_address)
    return token


def find_session(conn: Connection, token: str, *, idle_timeout: timedelta) -> Session | None:
    """The session that a cookie's token stands for; None when there is none, it ended, or it was idle too long.

    Args:
        idle: how long a session may go unused.
    """
    row = conn.fetch_one_or_none(_FIND_SESSION_SQL, {"sha256": fingerprint(token), "idle": idle_timeout})
    if row is None:
        return None
    return _session_from_row(row)


def keep_alive(conn: Connection, session_ids: Collection[int], *, idle_timeout: timedelta) -> set[int]:
    """Which of these sessions still hold; they count as used, as by a request, at most once a minute each."""
    rows = conn.fetch_all(_KEEP_ALIVE_SQL, {"ids": sorted(session_ids), "idle": idle_timeout})
    return {session_id for (session_id,) in rows}


def rotate_token(conn: Connection, session_id: int) -> str | None:
    """Give a session a new token, since what it may do has changed; its old one stops working at once.

    Returns:
        The new token, or None where the session has ended meanwhile.
    """
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    changed = conn.execute(
        sa.update(session)
        .where(session.c.id == session_id)
        .values(sha256=fingerprint(token), last_used_at=sa.func.clock_timestamp())
        .returning(session.c.id)
    ).one_or_none()
    return token if changed is not None else None


def list_sessions(conn: Connection, owner_id: int, *, idle_timeout: timedelta) -> list[Session]:
    """The sessions of an owner that are alive, the one used last first; at most 100."""
    clock = sa.func.clock_timestamp()
    query = (
        sa.select(
            session.c.id,
            session.c.method,
            session.c.address,
            session.c.agent,
            session.c.created_at,
            session.c.last_used_at,
            session.c.expires_at,
            clock - session.c.authenticated_at,
            owner.c.id,
            owner.c.email,
            owner.c.handle,
            owner.c.operator,
            owner.c.created_at,
            owner.c.suspended_at,
        )
        .join(owner, owner.c.id == session.c.owner_id)
        .where(
            session.c.owner_id == owner_id,
            session.c.expires_at > clock,
            session.c.last_used_at > clock - idle_timeout,
        )
        .order_by(session.c.last_used_at.desc(), session.c.id.desc())
        .limit(_MAX_SESSIONS)
    )
    return [_session_from_row(row) for row in conn.execute(query)]


def end_session(conn: Connection, owner_id: int, session_id: int) -> bool:
    """End one session of an owner; returns whether there was such a one."""
    return bool(_delete_sessions(conn, owner_id, session.c.id == session_id, "session.end"))


def end_all_sessions(
    conn: Connection, owner_id: int, *, except_session_id: int | None = None, actor: str | None = None
) -> int:
    """End every session of an owner, or all but one; returns how many ended.

    Args:
        actor: who does it, where it is not the owner.
    """
    kept = sa.true() if except_session_id is None else session.c.id != except_session_id
    return _delete_sessions(conn, owner_id, kept, "session.end_all", actor)


def _delete_sessions(
    conn: Connection, owner_id: int, condition: sa.ColumnElement[bool], action: str, actor: str | None = None
) -> int:
    ended: Any = conn.execute(
        sa.delete(session).where(session.c.owner_id == owner_id, condition).returning(session.c.id)
    ).all()
    if ended:
        handle = conn.execute(sa.select(owner.c.handle).where(owner.c.id == owner_id)).scalar_one()
        audit.record(conn, owner_id, actor or handle, action, handle, sessions=len(ended))
    return len(ended)


def _session_from_row(row: Sequence[Any]) -> Session:
    number, method, address, agent, created_at, last_used_at, expires_at, authenticated_ago, *whose = row
    owned = Owner(*whose)
    return Session(number, owned, method, address, agent, created_at, last_used_at, expires_at, authenticated_ago)


def _clean_user_agent(user_agent: str) -> str:
    """What a browser says of itself, without anything that the database would refuse."""
    return "".join(character for character in user_agent if character.isprintable())[:_MAX_USER_AGENT_LENGTH]
