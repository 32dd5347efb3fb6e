"""Answers kept for a while under a key that the server does not keep.

Whoever fetches one brings a secret. Two values are derived from it: where the answer lies, and the key that opens it.
The database holds the first and the encrypted answer, so that neither it nor a copy of it tells what was answered.
"""

import secrets
from datetime import timedelta

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bus.db import Connection

_KEY = 32
_NONCE = 12
_SWEEP = 100


def put(conn: Connection, purpose: str, secret: bytes, answer: bytes, *, keep: timedelta) -> None:
    """Keep an answer for `keep`; one that lies under the same secret is replaced.

    Args:
        purpose: what it is for: a secret opens only what was kept for the same purpose.
        secret: hard to guess, and known to whoever may fetch the answer.
        answer: at most 16,000 bytes.
    """
    lookup, key = _derive(purpose, secret)
    nonce = secrets.token_bytes(_NONCE)
    box = nonce + AESGCM(key).encrypt(nonce, answer, lookup)
    sweep(conn)
    conn.maybe(
        "INSERT INTO sealed (lookup, box, expires_at) VALUES (%s, %s, clock_timestamp() + %s)"
        " ON CONFLICT (lookup) DO UPDATE SET box = excluded.box, expires_at = excluded.expires_at RETURNING 1",
        (lookup, box, keep),
    )


def find(conn: Connection, purpose: str, secret: bytes) -> bytes | None:
    """The answer that lies under a secret, or None where there is none, or none any more."""
    lookup, key = _derive(purpose, secret)
    row = conn.maybe("SELECT box FROM sealed WHERE lookup = %s AND expires_at > clock_timestamp()", (lookup,))
    return None if row is None else _open(lookup, key, row[0])


def take(conn: Connection, purpose: str, secret: bytes) -> bytes | None:
    """As `find`, and forget it: of several who take it at once one gets it."""
    lookup, key = _derive(purpose, secret)
    row = conn.maybe("DELETE FROM sealed WHERE lookup = %s RETURNING box, expires_at > clock_timestamp()", (lookup,))
    return None if row is None or not row[1] else _open(lookup, key, row[0])


def sweep(conn: Connection, *, limit: int = _SWEEP) -> int:
    """Delete up to `limit` answers whose time is over; returns how many."""
    gone = conn.all(
        "DELETE FROM sealed WHERE ctid = ANY (ARRAY(SELECT ctid FROM sealed WHERE expires_at <= clock_timestamp()"
        " ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED)) RETURNING 1",
        (limit,),
    )
    return len(gone)


def _derive(purpose: str, secret: bytes) -> tuple[bytes, bytes]:
    """Where the answer lies, and the key that opens it."""
    material = HKDF(SHA256(), 2 * _KEY, salt=None, info=f"llm-bus sealed {purpose}".encode()).derive(secret)
    return material[:_KEY], material[_KEY:]


def _open(lookup: bytes, key: bytes, box: bytes) -> bytes | None:
    try:
        return AESGCM(key).decrypt(box[:_NONCE], box[_NONCE:], lookup)
    except InvalidTag:
        return None
