"""Sessions: browsers in which an owner is signed in. The browser holds a random token, the database its SHA-256."""

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from bus.auth.tables import login_link, session
from bus.db import Connection, from_row
from bus.rules.token_format import fingerprint
from bus.tenancy import audit
from bus.tenancy.owners import Owner
from bus.tenancy.tables import owner

_TOKEN_BYTES = 32
# The beginning is enough to tell browsers apart; a header may hold pages of text.
_MAX_USER_AGENT_LENGTH = 200
_MAX_SESSIONS = 100
PROXY_METHOD = "proxy"
"""Prefix of the method of sessions that last only as long as a proxy in front of the web vouches for the owner."""


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in browser.

    Attributes:
        method: how the owner signed in: a provider's name, `link`, or `proxy` and the proxy's subject.
        ip_address, user_agent: of the browser at sign-in.
        time_since_authentication: since the person last authenticated; None if only a proxy vouched for them.
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


@dataclass(frozen=True, slots=True)
class _SessionRow:
    """A session joined with its owner, one field per selected column."""

    id: int
    method: str
    ip_address: str
    user_agent: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    time_since_authentication: timedelta | None
    owner_id: int
    email: str
    handle: str
    operator: bool
    owner_created_at: datetime
    suspended_at: datetime | None

    def to_session(self) -> Session:
        return Session(
            id=self.id,
            owner=Owner(
                id=self.owner_id,
                email=self.email,
                handle=self.handle,
                operator=self.operator,
                created_at=self.owner_created_at,
                suspended_at=self.suspended_at,
            ),
            method=self.method,
            ip_address=self.ip_address,
            user_agent=self.user_agent,
            created_at=self.created_at,
            last_used_at=self.last_used_at,
            expires_at=self.expires_at,
            time_since_authentication=self.time_since_authentication,
        )


# Runs for every request: one statement that writes at most once a minute per session.
_FIND_SESSION_SQL = """
WITH live AS (
    SELECT s.id, s.method, s.address AS ip_address, s.agent AS user_agent, s.created_at, s.last_used_at, s.expires_at,
           clock_timestamp() - s.authenticated_at AS time_since_authentication,
           o.id AS owner_id, o.email, o.handle, o.operator, o.created_at AS owner_created_at, o.suspended_at
    FROM session s JOIN owner o ON o.id = s.owner_id
    WHERE s.sha256 = %(sha256)s AND s.expires_at > clock_timestamp()
      AND s.last_used_at > clock_timestamp() - %(idle)s
), updated AS (
    UPDATE session SET last_used_at = clock_timestamp()
    WHERE id = (SELECT id FROM live WHERE last_used_at < clock_timestamp() - interval '1 minute')
)
SELECT * FROM live
"""

_KEEP_ALIVE_SQL = """
WITH live AS (
    SELECT s.id, s.last_used_at FROM session s
    WHERE s.id = ANY (%(ids)s) AND s.expires_at > clock_timestamp() AND s.last_used_at > clock_timestamp() - %(idle)s
), updated AS (
    UPDATE session SET last_used_at = clock_timestamp() WHERE id = ANY (ARRAY(
        SELECT id FROM live WHERE last_used_at < clock_timestamp() - interval '1 minute' ORDER BY id))
)
SELECT id FROM live
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
        ttl: absolute lifetime of the session.
        authenticated: whether the person authenticated now or at `authenticated_at`; false if a proxy vouches for
            them with every request.
        authenticated_at: time of the authentication, if it was not now; a future time counts as now.
    Returns:
        The token for the session's cookie; it cannot be read again.
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
    """Return the session of a cookie's token; None if it does not exist, has ended or was idle for too long.

    Records the use, at most once a minute.
    """
    row = conn.fetch_one_or_none_as(
        _SessionRow, _FIND_SESSION_SQL, {"sha256": fingerprint(token), "idle": idle_timeout}
    )
    return None if row is None else row.to_session()


def keep_alive(conn: Connection, session_ids: Collection[int], *, idle_timeout: timedelta) -> set[int]:
    """Record the use of these sessions, at most once a minute each, and return those that are still live."""
    rows = conn.fetch_all(_KEEP_ALIVE_SQL, {"ids": sorted(session_ids), "idle": idle_timeout})
    return {session_id for (session_id,) in rows}


def rotate_token(conn: Connection, session_id: int) -> str | None:
    """Give a session a new token, as its privileges have changed; the old token stops working at once.

    Returns:
        The new token, or None if the session has ended.
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
    """Return the live sessions of an owner, the most recently used first; at most 100."""
    clock = sa.func.clock_timestamp()
    query = (
        sa.select(
            session.c.id,
            session.c.method,
            session.c.address.label("ip_address"),
            session.c.agent.label("user_agent"),
            session.c.created_at,
            session.c.last_used_at,
            session.c.expires_at,
            (clock - session.c.authenticated_at).label("time_since_authentication"),
            owner.c.id.label("owner_id"),
            owner.c.email,
            owner.c.handle,
            owner.c.operator,
            owner.c.created_at.label("owner_created_at"),
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
    return [from_row(_SessionRow, row).to_session() for row in conn.execute(query)]


def end_session(conn: Connection, owner_id: int, session_id: int) -> bool:
    """End one session of an owner; returns whether it existed."""
    return bool(_delete_sessions(conn, owner_id, session.c.id == session_id, "session.end"))


def end_all_sessions(conn: Connection, owner_id: int, *, except_session_id: int | None = None, actor: str) -> int:
    """End all sessions of an owner, or all but one, and void the login links not used yet; returns how many ended."""
    conn.execute(
        sa.update(login_link)
        .where(login_link.c.owner_id == owner_id, login_link.c.used_at.is_(None))
        .values(used_at=sa.func.clock_timestamp())
    )
    kept = sa.true() if except_session_id is None else session.c.id != except_session_id
    return _delete_sessions(conn, owner_id, kept, "session.end_all", actor)


def _delete_sessions(
    conn: Connection, owner_id: int, condition: sa.ColumnElement[bool], action: str, actor: str | None = None
) -> int:
    ended = conn.execute(
        sa.delete(session).where(session.c.owner_id == owner_id, condition).returning(session.c.id)
    ).all()
    if ended:
        handle = conn.execute(sa.select(owner.c.handle).where(owner.c.id == owner_id)).scalar_one()
        audit.record(conn, owner_id, actor or handle, action, handle, sessions=len(ended))
    return len(ended)


def _clean_user_agent(user_agent: str) -> str:
    """Return the User-Agent header without characters that the database would refuse, cut to its maximum length."""
    return "".join(character for character in user_agent if character.isprintable())[:_MAX_USER_AGENT_LENGTH]
