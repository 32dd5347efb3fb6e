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

_KEY_BYTES = 32
_NONCE_BYTES = 12
_EXPIRED_BATCH_SIZE = 100


def store(conn: Connection, purpose: str, secret: bytes, value: bytes, *, ttl: timedelta) -> None:
    """Keep an answer for `keep`; one that lies under the same secret is replaced.

    Args:
        purpose: what it is for: a secret opens only what was kept for the same purpose.
        secret: hard to guess, and known to whoever may fetch the answer.
        answer: at most 16,000 bytes.
    """
    lookup, key = _derive_lookup_and_key(purpose, secret)
    nonce = secrets.token_bytes(_NONCE_BYTES)
    box = nonce + AESGCM(key).encrypt(nonce, value, lookup)
    delete_expired(conn)
    conn.execute(
        "INSERT INTO sealed (lookup, box, expires_at) VALUES (%s, %s, clock_timestamp() + %s)"
        " ON CONFLICT (lookup) DO UPDATE SET box = excluded.box, expires_at = excluded.expires_at",
        (lookup, box, ttl),
    )


def find(conn: Connection, purpose: str, secret: bytes) -> bytes | None:
    """The answer that lies under a secret, or None where there is none, or none any more."""
    lookup, key = _derive_lookup_and_key(purpose, secret)
    row = conn.fetch_one_or_none(
        "SELECT box FROM sealed WHERE lookup = %s AND expires_at > clock_timestamp()", (lookup,)
    )
    return None if row is None else _decrypt(lookup, key, row[0])


def pop(conn: Connection, purpose: str, secret: bytes) -> bytes | None:
    """As `find`, and forget it: of several who take it at once one gets it."""
    lookup, key = _derive_lookup_and_key(purpose, secret)
    row = conn.fetch_one_or_none(
        "DELETE FROM sealed WHERE lookup = %s RETURNING box, expires_at > clock_timestamp()", (lookup,)
    )
    return None if row is None or not row[1] else _decrypt(lookup, key, row[0])


def delete_expired(conn: Connection, *, limit: int = _EXPIRED_BATCH_SIZE) -> int:
    """Delete up to `limit` answers whose time is over; returns how many."""
    gone = conn.fetch_all(
        "DELETE FROM sealed WHERE ctid = ANY (ARRAY(SELECT ctid FROM sealed WHERE expires_at <= clock_timestamp()"
        " ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED)) RETURNING 1",
        (limit,),
    )
    return len(gone)


def _derive_lookup_and_key(purpose: str, secret: bytes) -> tuple[bytes, bytes]:
    """Where the answer lies, and the key that opens it."""
    material = HKDF(SHA256(), 2 * _KEY_BYTES, salt=None, info=f"llm-bus sealed {purpose}".encode()).derive(secret)
    return material[:_KEY_BYTES], material[_KEY_BYTES:]


def _decrypt(lookup: bytes, key: bytes, ciphertext: bytes) -> bytes | None:
    try:
        return AESGCM(key).decrypt(ciphertext[:_NONCE_BYTES], ciphertext[_NONCE_BYTES:], lookup)
    except InvalidTag:
        return None
