"""Encrypted one-time store: values that expire, encrypted with keys that the server does not keep.

A client presents a secret to fetch a value. Two values are derived from the secret: the lookup key of the row, and the
encryption key. The database holds the lookup key and the ciphertext, so neither it nor a copy of it reveals the value.
"""

from base64 import urlsafe_b64encode
from datetime import timedelta

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bus.db import Connection

_KEY_BYTES = 32
_EXPIRED_BATCH_SIZE = 100


def store(conn: Connection, purpose: str, secret: bytes, value: bytes, *, ttl: timedelta) -> None:
    """Store a value until `ttl` has passed; replaces the value under the same secret.

    Args:
        purpose: namespace: a secret opens only values that were stored for the same purpose.
        secret: hard to guess; known to the client that may fetch the value.
        value: at most 12,000 bytes.
    """
    lookup, key = _derive_lookup_and_key(purpose, secret)
    ciphertext = _fernet(key).encrypt(value)
    delete_expired(conn)
    conn.execute(
        "INSERT INTO sealed (lookup, box, expires_at) VALUES (%s, %s, clock_timestamp() + %s)"
        " ON CONFLICT (lookup) DO UPDATE SET box = excluded.box, expires_at = excluded.expires_at",
        (lookup, ciphertext, ttl),
    )


def find(conn: Connection, purpose: str, secret: bytes) -> bytes | None:
    """Return the value under a secret, or None if there is none or it has expired."""
    lookup, key = _derive_lookup_and_key(purpose, secret)
    row = conn.fetch_one_or_none(
        "SELECT box FROM sealed WHERE lookup = %s AND expires_at > clock_timestamp()", (lookup,)
    )
    return None if row is None else _decrypt(key, row[0])


def pop(conn: Connection, purpose: str, secret: bytes) -> bytes | None:
    """Like `find`, and delete the value: of several concurrent callers one gets it."""
    lookup, key = _derive_lookup_and_key(purpose, secret)
    row = conn.fetch_one_or_none(
        "DELETE FROM sealed WHERE lookup = %s RETURNING box, expires_at > clock_timestamp()", (lookup,)
    )
    return None if row is None or not row[1] else _decrypt(key, row[0])


def delete_expired(conn: Connection, *, limit: int = _EXPIRED_BATCH_SIZE) -> int:
    """Delete up to `limit` expired values; returns how many."""
    return conn.execute(
        "DELETE FROM sealed WHERE ctid = ANY (ARRAY(SELECT ctid FROM sealed WHERE expires_at <= clock_timestamp()"
        " ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED))",
        (limit,),
    )


def _derive_lookup_and_key(purpose: str, secret: bytes) -> tuple[bytes, bytes]:
    """Return the lookup key of the row and the encryption key."""
    material = HKDF(SHA256(), 2 * _KEY_BYTES, salt=None, info=f"llm-bus sealed {purpose}".encode()).derive(secret)
    return material[:_KEY_BYTES], material[_KEY_BYTES:]


def _fernet(key: bytes) -> Fernet:
    return Fernet(urlsafe_b64encode(key))


def _decrypt(key: bytes, ciphertext: bytes) -> bytes | None:
    """Decrypt a value. One that was changed, or stored by another version, counts as absent."""
    try:
        return _fernet(key).decrypt(ciphertext)
    except InvalidToken:
        return None
