"""Notices are sent: what cannot be told is given up in its time, and is in nobody's way."""

import pytest

from bus import notices
from bus.db import Database
from bus.settings import Settings
from tests.factories import make_owner
from workers.job import all_jobs, run
from workers.settings import WorkerSettings

_SEND = all_jobs()["send_notices"]


@pytest.fixture
def settings(database_url: str) -> WorkerSettings:
    return WorkerSettings(bus=Settings(database_url), smtp_url="smtp://127.0.0.1:9", webhooks_to_private=True)


@pytest.mark.parametrize(("url", "address"), [("http://a..b/", None), (None, "a@["), (None, '"')])
def test_a_notice_that_cannot_be_sent_stops_no_other_and_ends(
    db: Database, settings: WorkerSettings, url: str | None, address: str | None
) -> None:
    with db.write() as conn:
        first, second = make_owner(conn), make_owner(conn)
        if url is not None:
            # Such a name is an address as far as its form goes, and cannot be asked for.
            notices.add_webhook(conn, first.id, url)
        notices.add(conn, "test", owner_id=first.id, address=address)
        notices.add_webhook(conn, second.id, "http://127.0.0.1:9/")
        notices.add(conn, "test", owner_id=second.id)
    assert run(_SEND, db, settings).counts == {"not_delivered": 2}
    for _ in notices.PAUSES_SECONDS:
        with db.write() as conn:
            conn.maybe("UPDATE notice SET due_at = clock_timestamp() RETURNING 1")
        assert run(_SEND, db, settings).outcome == "ok"
    with db.call() as conn:
        assert [one.state for owner in (first, second) for one in notices.list_(conn, owner.id)] == ["given up"] * 2
