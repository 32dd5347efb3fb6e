"""Authorization: every call checks the token, the participation, the owner and the state of the project itself."""

from collections.abc import Iterator

import pytest

from bus.coordination import posts
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import NotAuthenticated, OwnerSuspended
from bus.rules import token_format as form
from bus.tenancy import owners, participations, projects, tokens
from tests import factories, scenarios
from tests.assertions import assert_refused, database_checksum
from tests.scenarios import ADMIN_CALLS, ENGINE_CALLS, READ_CALLS, WRITE_CALLS, Scenario


@pytest.fixture(scope="module")
def scenario(module_conn: Connection) -> Scenario:
    return scenarios.create_scenario(module_conn)


@pytest.fixture
def conn(module_conn: Connection, scenario: Scenario) -> Iterator[Connection]:
    """A connection that returns to the scenario at the end."""
    with module_conn.raw.transaction(force_rollback=True):
        yield module_conn


@pytest.mark.parametrize("name", ENGINE_CALLS)
def test_every_call_accepts_a_live_token(conn: Connection, name: str, scenario: Scenario) -> None:
    ENGINE_CALLS[name](conn, scenario.caller.ctx, scenario)


@pytest.mark.parametrize("name", ENGINE_CALLS)
def test_no_call_accepts_a_token_that_is_no_longer_live(conn: Connection, name: str, scenario: Scenario) -> None:
    me = scenario.caller.ctx

    def check(reason: str, change: str, *, ctx: Ctx = me) -> None:
        with conn.raw.transaction(force_rollback=True):
            conn.execute(f"{change}")
            before = database_checksum(conn)
            with pytest.raises(NotAuthenticated), conn.raw.transaction():
                ENGINE_CALLS[name](conn, ctx, scenario)
            assert database_checksum(conn) == before, reason

    check("revoked", f"UPDATE token SET revoked_at = clock_timestamp() WHERE id = {me.token_id}")
    check("expired", f"UPDATE token SET expires_at = clock_timestamp() WHERE id = {me.token_id}")
    check(
        "participation removed",
        f"UPDATE participation SET removed_at = clock_timestamp() WHERE id = {me.participation_id}",
    )
    check(
        "participant removed",
        f"UPDATE participant SET removed_at = clock_timestamp() WHERE id = {me.participant_id}",
    )
    check("being purged", f"UPDATE project SET purging_at = clock_timestamp() WHERE id = {me.project_id}")
    # A token that was never issued, and one of another participation.
    nothing = "UPDATE token SET hint = hint WHERE false"
    for token_id in (2**40, scenario.teammate.ctx.token_id):
        stranger = Ctx(me.project_id, me.participation_id, me.participant_id, me.owner_id, token_id)
        check("not its token", nothing, ctx=stranger)


@pytest.mark.parametrize("name", ENGINE_CALLS)
def test_no_call_accepts_a_suspended_owner(conn: Connection, name: str, scenario: Scenario) -> None:
    owners.suspend(conn, scenario.project.owner_id, reason="unpaid", actor="operator")
    before = database_checksum(conn)
    with pytest.raises(OwnerSuspended), conn.raw.transaction():
        ENGINE_CALLS[name](conn, scenario.caller.ctx, scenario)
    assert database_checksum(conn) == before
    owners.lift_suspension(conn, scenario.project.owner_id, actor="operator")
    ENGINE_CALLS[name](conn, scenario.caller.ctx, scenario)


@pytest.mark.parametrize("name", READ_CALLS)
def test_reads_work_in_an_archived_project(conn: Connection, name: str, scenario: Scenario) -> None:
    projects.archive(conn, scenario.project.id, actor="cli")
    READ_CALLS[name](conn, scenario.caller.ctx, scenario)


@pytest.mark.parametrize("name", WRITE_CALLS)
def test_writes_are_forbidden_in_an_archived_project(conn: Connection, name: str, scenario: Scenario) -> None:
    projects.archive(conn, scenario.project.id, actor="cli")
    before = database_checksum(conn)
    with assert_refused(conn, "forbidden") as caught:
        WRITE_CALLS[name](conn, scenario.caller.ctx, scenario)
    assert "archived" in caught.value.message
    assert database_checksum(conn) == before
    projects.reopen(conn, scenario.project.id, actor="cli")
    WRITE_CALLS[name](conn, scenario.caller.ctx, scenario)


@pytest.mark.parametrize("name", ADMIN_CALLS)
def test_administration_is_forbidden_without_admin_rights(conn: Connection, name: str, scenario: Scenario) -> None:
    before = database_checksum(conn)
    with assert_refused(conn, "forbidden"):
        WRITE_CALLS[name](conn, scenario.teammate.ctx, scenario)
    assert database_checksum(conn) == before


@pytest.mark.parametrize("name", ADMIN_CALLS)
def test_administration_is_forbidden_to_a_demoted_admin(conn: Connection, name: str, scenario: Scenario) -> None:
    participations.set_admin(conn, scenario.project.id, "caller", False, actor="cli")
    with assert_refused(conn, "forbidden"):
        WRITE_CALLS[name](conn, scenario.caller.ctx, scenario)


def test_an_owner_acts_without_a_token_in_the_web(conn: Connection, scenario: Scenario) -> None:
    me = scenario.caller.ctx
    bare = Ctx(me.project_id, me.participation_id, me.participant_id, me.owner_id, None)
    assert posts.ack(conn, bare, [scenario.post_id])[0].post_id == scenario.post_id


def test_a_token_with_a_future_expiry_works(conn: Connection, scenario: Scenario) -> None:
    me = scenario.caller.ctx
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


def test_a_token_that_was_never_issued_is_unknown(conn: Connection) -> None:
    factories.make_agent(conn)
    assert tokens.find_caller(conn, form.fingerprint(form.generate_token())) is None
    assert tokens.find_status(conn, form.fingerprint("lone \ud800")) is None


def test_the_use_of_a_token_is_recorded_once_a_minute(conn: Connection) -> None:
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


def test_the_status_of_a_token_names_its_project(conn: Connection) -> None:
    agent = factories.make_agent(conn)
    state = tokens.find_status(conn, form.fingerprint(agent.token))
    assert state is not None
    assert (state.project, state.revoked_at, state.expires_at) == (agent.project, None, None)
    tokens.revoke_all(conn, agent.ctx.project_id, agent.label, actor="cli")
    state = tokens.find_status(conn, form.fingerprint(agent.token))
    assert state is not None
    assert state.revoked_at is not None
