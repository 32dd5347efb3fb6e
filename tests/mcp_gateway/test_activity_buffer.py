"""The buffer of activity: what a flush could not write, the next one writes."""

from contextlib import closing

import pytest

from bus.coordination import posts
from bus.db import Database
from bus.errors import Unavailable
from mcp_gateway.activity_buffer import ActivityBuffer
from tests.mcp_gateway.conftest import Team
from tests.servers import free_port


def test_activity_that_a_flush_could_not_write_is_written_by_the_next(gateway_db: Database, team: Team) -> None:
    reader = team.bob.ctx.with_caller("one", "codex")
    with gateway_db.transaction() as conn:
        post_id = posts.create(conn, team.alice.ctx, "look", to_actor="bob").post_id
    buffer = ActivityBuffer()
    buffer.record_activity(reader)
    buffer.record_shown_posts(reader, [post_id])
    with closing(Database(f"postgresql://reader@127.0.0.1:{free_port()}/none", pool_size=1)) as unreachable:
        with pytest.raises(Unavailable):
            buffer.flush(unreachable)
    buffer.flush(gateway_db)
    with gateway_db.connection() as conn:
        me = (team.project_id, team.bob.ctx.participation_id)
        delivery = "SELECT surfaced_at IS NOT NULL FROM delivery WHERE (project_id, participation_id) = (%s, %s)"
        assert conn.fetch_one(delivery, me) == (True,)
        shown = "SELECT key, post_id FROM session_post WHERE (project_id, participation_id) = (%s, %s)"
        assert conn.fetch_all(shown, me) == [("one", post_id)]
        seen = "SELECT key, token_id FROM agent_session WHERE (project_id, participation_id) = (%s, %s)"
        assert conn.fetch_all(seen, me) == [("one", team.bob.ctx.token_id)]
        client = "SELECT client FROM presence WHERE (project_id, participation_id) = (%s, %s)"
        assert conn.fetch_one(client, me) == ("codex",)
        used = "SELECT last_used_at IS NOT NULL FROM token WHERE id = %s"
        assert conn.fetch_one(used, (team.bob.ctx.token_id,)) == (True,)
