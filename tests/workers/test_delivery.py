"""Delivery of notices: an undeliverable notice is given up eventually and blocks no other."""

import pytest

from bus.config.settings import Settings
from bus.db import Database
from bus.notifications import outbox
from bus.operations import project_purge
from tests.factories import make_owner, make_project
from workers.job_runner import execute_job
from workers.jobs import all_jobs
from workers.settings import WorkerSettings

_SEND = all_jobs()["send_notices"]


@pytest.fixture
def settings(database_url: str) -> WorkerSettings:
    return WorkerSettings(
        bus=Settings(database_url=database_url), smtp_url="smtp://127.0.0.1:9", allow_private_webhooks=True
    )


@pytest.mark.parametrize(("url", "address"), [("http://a..b/", None), (None, "a@["), (None, '"')])
def test_an_undeliverable_notice_blocks_no_other_and_is_given_up(
    db: Database, settings: WorkerSettings, url: str | None, address: str | None
) -> None:
    with db.transaction() as conn:
        first, second = make_owner(conn), make_owner(conn)
        if url is not None:
            # The name passes validation and cannot be resolved.
            outbox.add_webhook(conn, first.id, url, actor="cli")
        outbox.enqueue(conn, "test", owner_id=first.id, email=address)
        outbox.add_webhook(conn, second.id, "http://127.0.0.1:9/", actor="cli")
        outbox.enqueue(conn, "test", owner_id=second.id)
    assert execute_job(_SEND, db, settings).counts == {"not_delivered": 2}
    for _ in outbox.RETRY_DELAYS_SECONDS:
        with db.transaction() as conn:
            conn.execute("UPDATE notice SET due_at = clock_timestamp()")
        assert execute_job(_SEND, db, settings).outcome == "ok"
    with db.connection() as conn:
        entries = [entry for owner in (first, second) for entry in outbox.list_log_entries(conn, owner.id)]
    assert [entry.state for entry in entries] == ["given up"] * 2


@pytest.mark.parametrize("purged", [True, False])
def test_a_removed_webhook_receives_nothing_more(db: Database, settings: WorkerSettings, purged: bool) -> None:
    """Its secret is gone too, and a signature with an empty key proves nothing."""
    with db.transaction() as conn:
        project = make_project(conn)
        hook = outbox.add_webhook(conn, project.owner_id, "http://127.0.0.1:9/", project_id=project.id, actor="cli")
        if purged:
            outbox.enqueue(conn, "test", owner_id=project.owner_id, project_id=project.id)
            project_purge.begin_purge(conn, project.id, actor="cli")
            while not project_purge.purge_step(conn, project.id):
                pass
        else:
            # Removed after another transaction had read the list of webhooks.
            outbox.enqueue(conn, "test", owner_id=project.owner_id, project_id=project.id)
            conn.execute("UPDATE webhook SET removed_at = clock_timestamp() WHERE id = %s", (hook.id,))
    execute_job(_SEND, db, settings)
    with db.connection() as conn:
        (entry,) = outbox.list_log_entries(conn, project.owner_id)
    assert (entry.state, entry.last_result) == ("given up", "the webhook was removed")
