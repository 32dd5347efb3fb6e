"""Rows of the token table, by participation. Only the SHA-256 of a token is stored.

bus/tenancy/tokens.py is the audited interface on top; this module exists apart from it because joining and removing
create and revoke tokens too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import sqlalchemy as sa

from bus.db import Connection
from bus.rules import token_format
from bus.scopes import FULL_SCOPE, Scope
from bus.tenancy.tables import token


@dataclass(frozen=True, slots=True)
class GeneratedToken:
    """A new token with its text, which is not stored."""

    id: int
    text: str = field(repr=False)
    hint: str


def generate(
    conn: Connection,
    participation_id: int,
    *,
    label: str = "",
    ttl: timedelta | None = None,
    scope: Scope = FULL_SCOPE,
) -> GeneratedToken:
    """Create a token of a participation. It expires after `ttl`; without one it never expires."""
    text = token_format.generate_token()
    hint = token_format.display_hint(text)
    token_id = conn.execute(
        sa.insert(token)
        .values(
            participation_id=participation_id,
            sha256=token_format.fingerprint(text),
            hint=hint,
            label=label,
            scope=scope,
            expires_at=None if ttl is None else sa.func.clock_timestamp() + ttl,
        )
        .returning(token.c.id)
    ).scalar_one()
    return GeneratedToken(id=token_id, text=text, hint=hint)


def revoke_all(conn: Connection, participation_ids: Sequence[int], *, except_token_id: int | None = None) -> int:
    """Revoke the tokens of participations that are not yet revoked; return how many.

    Locks: the tokens, by ascending id, as `tokens.record_use` does.
    """
    to_revoke = sa.select(token.c.id).where(
        token.c.participation_id.in_(participation_ids), token.c.revoked_at.is_(None)
    )
    if except_token_id is not None:
        to_revoke = to_revoke.where(token.c.id != except_token_id)
    locked = to_revoke.order_by(token.c.id).with_for_update(key_share=True).cte("locked")
    statement = sa.update(token).where(token.c.id == locked.c.id).values(revoked_at=sa.func.clock_timestamp())
    return conn.execute(statement).rowcount


def revoke(conn: Connection, token_id: int) -> bool:
    """Revoke one token, with the access tokens of a connected client; return whether it was not yet revoked.

    Locks: the tokens, by ascending id. The caller has locked the project clock, which adding an access token locks too.
    """
    locked = (
        sa.select(token.c.id)
        .where(sa.or_(token.c.id == token_id, token.c.parent_id == token_id), token.c.revoked_at.is_(None))
        .order_by(token.c.id)
        .with_for_update(key_share=True)
        .cte("locked")
    )
    statement = sa.update(token).where(token.c.id == locked.c.id).values(revoked_at=sa.func.clock_timestamp())
    return token_id in conn.execute(statement.returning(token.c.id)).scalars().all()
