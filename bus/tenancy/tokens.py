"""Tokens: what a caller presents. Shown once; only the SHA-256 is kept."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import sqlalchemy as sa

from bus.ctx import Ctx
from bus.db import Connection
from bus.rules import token_format as form
from bus.tenancy.tables import token


@dataclass(frozen=True, slots=True)
class MintedToken:
    """A token at the one moment when its text is known."""

    id: int
    text: str = field(repr=False)
    hint: str


def mint(conn: Connection, participation_id: int, *, label: str = "", ttl: timedelta | None = None) -> MintedToken:
    """Create a token for a participation; it expires after `ttl`, or never where that is None."""
    text = form.generate_token()
    hint = form.display_hint(text)
    token_id = conn.execute(
        sa.insert(token)
        .values(
            participation_id=participation_id,
            sha256=form.fingerprint(text),
            hint=hint,
            label=label,
            expires_at=None if ttl is None else sa.func.clock_timestamp() + ttl,
        )
        .returning(token.c.id)
    ).scalar_one()
    return MintedToken(token_id, text, hint)


def revoke_all(conn: Connection, participation_id: int, *, except_token_id: int | None = None) -> int:
    """Revoke the live tokens of a participation, `but` excepted; returns how many."""
    live = sa.select(token.c.id).where(token.c.participation_id == participation_id, token.c.revoked_at.is_(None))
    if except_token_id is not None:
        live = live.where(token.c.id != except_token_id)
    # Rows are locked by ascending id, as `touch` does.
    locked = live.order_by(token.c.id).with_for_update(key_share=True).cte("live")
    statement = sa.update(token).where(token.c.id == locked.c.id).values(revoked_at=sa.func.clock_timestamp())
    return conn.execute(statement).rowcount


def revoke(conn: Connection, token_id: int) -> bool:
    """Revoke one token; returns whether it was not yet revoked."""
    statement = sa.update(token).where(token.c.id == token_id, token.c.revoked_at.is_(None))
    return conn.execute(statement.values(revoked_at=sa.func.clock_timestamp())).rowcount > 0


def find_caller(conn: Connection, sha256: bytes) -> Ctx | None:
    """The immutable facts behind a token, or None where no such token was ever minted.

    Says nothing about whether the token is still good: each call's own statement asks that.
    """
    row = conn.fetch_one_or_none(
        "SELECT p.project_id, p.id, p.participant_id, pj.owner_id, t.id FROM token t"
        " JOIN participation p ON p.id = t.participation_id JOIN project pj ON pj.id = p.project_id"
        " WHERE t.sha256 = %s",
        (sha256,),
    )
    return Ctx(*row) if row else None


def record_use(conn: Connection, token_ids: list[int]) -> None:
    """Note that tokens were used. Coarse: a token used within the last minute is left alone.

    Locks: the token rows, by ascending id.
    """
    conn.execute(
        "WITH used AS (SELECT t.id FROM token t WHERE t.id = ANY (%s)"
        " AND (t.last_used_at IS NULL OR t.last_used_at < clock_timestamp() - interval '1 minute')"
        " ORDER BY t.id FOR NO KEY UPDATE)"
        " UPDATE token t SET last_used_at = clock_timestamp() FROM used WHERE t.id = used.id RETURNING t.id",
        (token_ids,),
    )


@dataclass(frozen=True, slots=True)
class Token:
    """A token as its owner sees it; `state` is live, expired or revoked."""

    id: int
    hint: str
    label: str
    state: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


def list_tokens(conn: Connection, participation_id: int, *, before: int | None = None, limit: int = 50) -> list[Token]:
    """Tokens of a participation, newest first, at most `limit`, with ids below `before`."""
    state = sa.case(
        (token.c.revoked_at.is_not(None), "revoked"),
        (token.c.expires_at <= sa.func.clock_timestamp(), "expired"),
        else_="live",
    )
    columns = (token.c.created_at, token.c.last_used_at, token.c.expires_at, token.c.revoked_at)
    query = (
        sa.select(token.c.id, token.c.hint, token.c.label, state, *columns)
        .where(token.c.participation_id == participation_id)
        .order_by(token.c.id.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(token.c.id < before)
    return [Token(*row) for row in conn.execute(query)]


@dataclass(frozen=True, slots=True)
class TokenStatus:
    """What `llm-bus token check` and the admin say of a token."""

    project: str
    label: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


def find_status(conn: Connection, sha256: bytes) -> TokenStatus | None:
    """The state of a token, or None where no such token was ever minted."""
    row = conn.fetch_one_or_none(
        "SELECT pj.name, pt.label, t.created_at, t.expires_at, t.revoked_at FROM token t"
        " JOIN participation p ON p.id = t.participation_id JOIN project pj ON pj.id = p.project_id"
        " JOIN participant pt ON pt.id = p.participant_id WHERE t.sha256 = %s",
        (sha256,),
    )
    return TokenStatus(*row) if row else None
