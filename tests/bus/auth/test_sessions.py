"""Sessions: browsers in which an owner is signed in."""

from datetime import UTC, datetime, timedelta

from bus.auth import sessions
from bus.db import Connection
from tests.factories import make_owner


def test_a_token_rotation_keeps_the_time_of_the_authentication(conn: Connection) -> None:
    owner, week = make_owner(conn, "rotated"), timedelta(days=7)
    token = sessions.open_session(conn, owner.id, method="link", ttl=week)
    conn.execute(
        "UPDATE session SET authenticated_at = authenticated_at - interval '3 hours' WHERE owner_id = %s",
        (owner.id,),
    )
    (session,) = sessions.list_sessions(conn, owner.id, idle_timeout=week)
    renewed = sessions.rotate_token(conn, session.id)
    assert renewed is not None
    rotated = sessions.find_session(conn, renewed, idle_timeout=week)
    assert sessions.find_session(conn, token, idle_timeout=week) is None
    assert rotated is not None
    assert rotated.time_since_authentication is not None
    assert rotated.time_since_authentication > timedelta(hours=3)
    # A provider may report a past authentication; a future one counts as now; a proxy reports none.
    for at, authenticated, minimum, maximum in (
        (datetime.now(UTC) - timedelta(days=1), True, 86_000, 87_000),
        (datetime.now(UTC) + timedelta(days=1), True, 0, 60),
        (None, False, None, None),
    ):
        token = sessions.open_session(
            conn, owner.id, method="x", ttl=week, authenticated=authenticated, authenticated_at=at
        )
        opened = sessions.find_session(conn, token, idle_timeout=week)
        assert opened is not None
        if minimum is None or maximum is None:
            assert opened.time_since_authentication is None
        else:
            assert opened.time_since_authentication is not None
            assert minimum <= opened.time_since_authentication.total_seconds() <= maximum
