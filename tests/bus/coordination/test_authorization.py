"""Who may call: each verb's own statement asks for the token, the grant, the owner and the state of the project."""

import pytest

from bus.coordination import posts
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import NotAuthenticated, OwnerSuspended
from bus.rules import token_format as form
from bus.tenancy import owners, participations, projects, tokens
from tests import factories, scenarios
from tests.assertions import assert_refused, database_checksum
from tests.scenarios import ADMIN_CALLS, ENGINE_CALLS, READ_CALLS, WRITE_CALLS


@pytest.mark.parametrize("verb", ENGINE_CALLS)
def test_every_verb_answers_a_good_token(conn: Connection, verb: str) -> None:
    scene = scenarios.create_scenario(conn)
    ENGINE_CALLS[verb](conn, scene.caller.ctx, scene)


@pytest.mark.parametrize("verb", ENGINE_CALLS)
def test_no_verb_answers_a_token_that_is_no_longer_good(conn: Connection, verb: str) -> None:
    scene = scenarios.create_scenario(conn)
    me = scene.caller.ctx

    def check(why: str, change: str, *, ctx: Ctx = me) -> None:
        with conn.raw.transaction(force_rollback=True):
            conn.execute(f"{change}")
            before = database_checksum(conn)
            with pytest.raises(NotAuthenticated), conn.raw.transaction():
                ENGINE_CALLS[verb](conn, ctx, scene)
            assert database_checksum(conn) == before, why

    check("revoked", f"UPDATE token SET revoked_at = clock_timestamp() WHERE id = {me.token_id}")
    check("expired", f"UPDATE token SET expires_at = clock_timestamp() WHERE id = {me.token_id}")
    check(
        "the grant is gone",
        f"UPDATE participation SET removed_at = clock_timestamp() WHERE id = {me.participation_id}",
    )
    check(
        "the participant is gone",
        f"UPDATE participant SET removed_at = clock_timestamp() WHERE id = {me.participant_id}",
    )
    check("being purged", f"UPDATE project SET purging_at = clock_timestamp() WHERE id = {me.project_id}")
    # A token that was never minted, and one that is another participation's.
    nothing = "UPDATE token SET hint = hint WHERE false"
    for token_id in (2**40, scene.teammate.ctx.token_id):
        stranger = Ctx(me.project_id, me.participation_id, me.participant_id, me.owner_id, token_id)
        check("not its token", nothing, ctx=stranger)


@pytest.mark.parametrize("verb", ENGINE_CALLS)
def test_no_verb_answers_for_a_suspended_owner(conn: Connection, verb: str) -> None:
    scene = scenarios.create_scenario(conn)
    owners.suspend(conn, scene.project.owner_id, reason="unpaid", actor="operator")
    before = database_checksum(conn)
    with pytest.raises(OwnerSuspended), conn.raw.transaction():
        ENGINE_CALLS[verb](conn, scene.caller.ctx, scene)
    assert database_checksum(conn) == before
    owners.lift_suspension(conn, scene.project.owner_id, actor="operator")
    ENGINE_CALLS[verb](conn, scene.caller.ctx, scene)


@pytest.mark.parametrize("verb", READ_CALLS)
def test_reading_goes_on_in_an_archived_project(conn: Connection, verb: str) -> None:
    scene = scenarios.create_scenario(conn)
    projects.archive(conn, scene.project.id, actor="cli")
    READ_CALLS[verb](conn, scene.caller.ctx, scene)


@pytest.mark.parametrize("verb", WRITE_CALLS)
def test_writing_is_forbidden_in_an_archived_project(conn: Connection, verb: str) -> None:
    scene = scenarios.create_scenario(conn)
    projects.archive(conn, scene.project.id, actor="cli")
    before = database_checksum(conn)
    with assert_refused(conn, "forbidden") as caught:
        WRITE_CALLS[verb](conn, scene.caller.ctx, scene)
    assert "archived" in caught.value.message
    assert database_checksum(conn) == before
    projects.reopen(conn, scene.project.id, actor="cli")
    WRITE_CALLS[verb](conn, scene.caller.ctx, scene)


@pytest.mark.parametrize("verb", ADMIN_CALLS)
def test_administration_is_forbidden_to_others(conn: Connection, verb: str) -> None:
    scene = scenarios.create_scenario(conn)
    before = database_checksum(conn)
    with assert_refused(conn, "forbidden"):
        WRITE_CALLS[verb](conn, scene.teammate.ctx, scene)
    assert database_checksum(conn) == before


@pytest.mark.parametrize("verb", ADMIN_CALLS)
def test_a_demoted_admin_administers_no_more(conn: Connection, verb: str) -> None:
    scene = scenarios.create_scenario(conn)
    participations.set_admin(conn, scene.project.id, "caller", False, actor="cli")
    with assert_refused(conn, "forbidden"):
        WRITE_CALLS[verb](conn, scene.caller.ctx, scene)


def test_an_owner_acts_without_a_token_in_the_web(conn: Connection) -> None:
    scene = scenarios.create_scenario(conn)
    me = scene.caller.ctx
    bare = Ctx(me.project_id, me.participation_id, me.participant_id, me.owner_id, None)
    assert posts.ack(conn, bare, [scene.post_id])[0].post_id == scene.post_id


def test_a_token_with_a_future_expiry_works(conn: Connection) -> None:
    scene = scenarios.create_scenario(conn)
    me = scene.caller.ctx
    conn.execute(
        "UPDATE token SET expires_at = clock_timestamp() + interval '1 hour' WHERE id = %s",
        (me.token_id,),
    )
    assert posts.list_posts(conn, me, to_me=True).posts


def test_only_the_hash_of_a_token_is_stored(conn: Connection) -> None:
    agent = factories.make_agent(conn)
    row = conn.fetch_one("SELECT t::text, sha256, hint FROM token t WHERE id = %s", (agent.ctx.token_id,))
    assert agent.token not in row[0]
    assert row[1] == form.fingerprint(agent.token)
    assert row[2] == form.display_hint(agent.token)


def test_a_token_that_was_never_minted_resolves_to_nobody(conn: Connection) -> None:
    factories.make_agent(conn)
    assert tokens.find_caller(conn, form.fingerprint(form.generate_token())) is None
    assert tokens.find_status(conn, form.fingerprint("lone \ud800")) is None


def test_the_use_of_a_token_is_noted_once_a_minute(conn: Connection) -> None:
    agent = factories.make_agent(conn)
    used = "SELECT last_used_at FROM token WHERE id = %s"
    me = (agent.ctx.token_id,)
    assert conn.fetch_one(used, me) == (None,)
    tokens.record_use(conn, [agent.ctx.token_id or 0])
    (first,) = conn.fetch_one(used, me)
    assert first is not None
    tokens.record_use(conn, [agent.ctx.token_id or 0])
    assert conn.fetch_one(used, me) == (first,)
    conn.execute(
        "UPDATE token SET last_used_at = clock_timestamp() - interval '61 seconds' WHERE id = %s",
        me,
    )
    tokens.record_use(conn, [agent.ctx.token_id or 0])
    assert conn.fetch_one(used, me)[0] >= first


def test_the_state_of_a_token_says_where_it_belongs(conn: Connection) -> None:
    agent = factories.make_agent(conn)
    state = tokens.find_status(conn, form.fingerprint(agent.token))
    assert state is not None
    assert (state.project, state.revoked_at, state.expires_at) == (agent.project, None, None)
    tokens.revoke_all(conn, agent.ctx.project_id, agent.label, actor="cli")
    state = tokens.find_status(conn, form.fingerprint(agent.token))
    assert state is not None
    assert state.revoked_at is not None
