"""The one-time store: values encrypted with keys that the database does not hold."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bus.db import Connection, Database, one_time_store
from tests.concurrency import run_numbered_concurrently

MINUTE = timedelta(minutes=1)


def test_only_the_secret_and_the_purpose_of_a_value_find_it(conn: Connection) -> None:
    one_time_store.store(conn, "join", b"secret", b"the answer", ttl=MINUTE)
    assert one_time_store.find(conn, "join", b"secret") == b"the answer"
    assert one_time_store.find(conn, "join", b"another") is None
    assert one_time_store.find(conn, "card", b"secret") is None
    one_time_store.store(conn, "join", b"secret", b"a newer one", ttl=MINUTE)
    assert one_time_store.find(conn, "join", b"secret") == b"a newer one"


def test_the_database_holds_neither_value_nor_secret_nor_key(conn: Connection) -> None:
    one_time_store.store(conn, "join", b"a-rather-long-secret", b"the answer in clear", ttl=MINUTE)
    ((lookup, ciphertext),) = conn.fetch_all("SELECT lookup, box FROM sealed")
    for plain in (
        b"a-rather-long-secret",
        b"the answer",
        one_time_store._derive_lookup_and_key("join", b"a-rather-long-secret")[1],
    ):
        assert plain not in lookup + ciphertext
    conn.execute("UPDATE sealed SET box = set_byte(box, 20, 255 - get_byte(box, 20))")
    assert one_time_store.find(conn, "join", b"a-rather-long-secret") is None


def test_a_value_of_the_limit_fits(conn: Connection) -> None:
    value = bytes(range(256)) * 46 + b"x" * 224
    assert len(value) == 12_000
    one_time_store.store(conn, "join", b"secret", value, ttl=MINUTE)
    assert one_time_store.find(conn, "join", b"secret") == value


@pytest.mark.parametrize("read", [one_time_store.find, one_time_store.pop])
def test_a_value_of_an_earlier_version_is_absent(conn: Connection, read: Callable[..., bytes | None]) -> None:
    """Earlier versions stored AES-256-GCM under the same two keys."""
    lookup, key = one_time_store._derive_lookup_and_key("join", b"secret")
    for nonce in (b"n" * 12, b"\x80" + b"n" * 11, b"gAAAAABn" + b"n" * 4):
        one_time_store.store(conn, "join", b"secret", b"a newer one", ttl=MINUTE)
        ciphertext = nonce + AESGCM(key).encrypt(nonce, b"the answer", lookup)
        conn.execute("UPDATE sealed SET box = %s WHERE lookup = %s", (ciphertext, lookup))
        assert read(conn, "join", b"secret") is None
    one_time_store.store(conn, "join", b"secret", b"the answer", ttl=MINUTE)
    assert read(conn, "join", b"secret") == b"the answer"


def test_a_value_moved_to_another_row_is_absent(conn: Connection) -> None:
    one_time_store.store(conn, "join", b"first", b"the answer of the first", ttl=MINUTE)
    one_time_store.store(conn, "join", b"second", b"the answer of the second", ttl=MINUTE)
    lookup, _ = one_time_store._derive_lookup_and_key("join", b"first")
    conn.execute("UPDATE sealed SET box = (SELECT box FROM sealed WHERE lookup = %s)", (lookup,))
    assert one_time_store.find(conn, "join", b"first") == b"the answer of the first"
    assert one_time_store.find(conn, "join", b"second") is None


def test_a_value_expires_and_is_deleted(conn: Connection) -> None:
    one_time_store.store(conn, "join", b"old", b"x", ttl=timedelta(0))
    assert one_time_store.find(conn, "join", b"old") is None
    one_time_store.store(conn, "join", b"old", b"y", ttl=timedelta(0))
    assert one_time_store.pop(conn, "join", b"old") is None
    one_time_store.store(conn, "join", b"old", b"x", ttl=timedelta(0))
    one_time_store.store(conn, "join", b"new", b"y", ttl=MINUTE)
    assert conn.fetch_one("SELECT count(*) FROM sealed") == (1,)
    assert one_time_store.delete_expired(conn) == 0


def test_one_of_several_concurrent_callers_pops_a_value(db: Database) -> None:
    for _ in range(10):
        with db.transaction() as conn:
            one_time_store.store(conn, "card", b"secret", b"token", ttl=MINUTE)
        taken = run_numbered_concurrently(db, 5, lambda conn, _: one_time_store.pop(conn, "card", b"secret"))
        assert sorted(taken, key=str) == [None] * 4 + [b"token"] or sorted(taken, key=str) == [b"token"] + [None] * 4
