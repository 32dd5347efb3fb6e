"""Isolation of two tenants with the same names and numbers: neither observes that the other exists."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from bus.coordination import digest, leases, ledger, posts, presence, sequences, task_queries, tasks
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError
from bus.tenancy import participant_queries, projects, tokens
from tests import factories, scenarios
from tests.assertions import database_checksum
from tests.scenarios import ENGINE_CALLS, Scenario

Call: TypeAlias = Callable[[Connection, Ctx, Any], Any]


@pytest.fixture(scope="module")
def projects_alike(module_conn: Connection) -> tuple[Scenario, Scenario]:
    """Two projects with the same content."""
    return scenarios.create_scenario(module_conn), scenarios.create_scenario(module_conn)


@pytest.fixture
def conn(module_conn: Connection, projects_alike: tuple[Scenario, Scenario]) -> Iterator[Connection]:
    """A connection that returns to those projects at the end."""
    with module_conn.raw.transaction(force_rollback=True):
        yield module_conn


@pytest.fixture
def two_projects(conn: Connection, projects_alike: tuple[Scenario, Scenario]) -> tuple[Scenario, Scenario]:
    """Two projects; the second has the content of the first, and more of everything."""
    _, theirs = projects_alike
    other = theirs.caller.ctx
    for number in range(5):
        tasks.create(conn, other, f"secret {number}")
        posts.create(conn, theirs.teammate.ctx, "secret", to_actor="caller", ref="SECRET", tag="secret")
        sequences.claim(conn, other, "secret")
        leases.acquire(conn, other, f"secret/{number}")
    factories.make_agent(conn, theirs.project, "secretary", lane="secret")
    return projects_alike


# Each is called with two numbers that the caller's project does not have: one of the other project, one of none.
_BY_TASK: dict[str, Call] = {
    "assign": lambda conn, ctx, task: tasks.assign(conn, ctx, task, "mate"),
    "start": tasks.start,
    "block": lambda conn, ctx, task: tasks.block(conn, ctx, task, "x"),
    "resolve": tasks.resolve,
    "ship": tasks.ship,
    "create blocked_on": lambda conn, ctx, task: tasks.create(conn, ctx, "x", blocked_on=[task]),
    "block on": lambda conn, ctx, task: tasks.block(conn, ctx, 3, "x", on=task),
    "resolve blocker": lambda conn, ctx, task: tasks.resolve(conn, ctx, 5, blocker=task),
}
_BY_POST: dict[str, Call] = {
    "ack": lambda conn, ctx, post: posts.ack(conn, ctx, [post]),
    "reply": lambda conn, ctx, post: posts.create(conn, ctx, "x", to_actor="mate", reply_to=post),
}
_BY_NAME: dict[str, Call] = {
    "post": lambda conn, ctx, name: posts.create(conn, ctx, "x", to_actor=name),
    "task_create": lambda conn, ctx, name: tasks.create(conn, ctx, "x", owner=name),
    "task_assign": lambda conn, ctx, name: tasks.assign(conn, ctx, 1, name),
    "query_events": lambda conn, ctx, name: ledger.query_events(conn, ctx, actor=name),
    "list_tasks": lambda conn, ctx, name: task_queries.list_tasks(conn, ctx, owner=name),
    "admin_rotate": tokens.rotate_as_admin,
    "admin_revoke": tokens.revoke_as_admin,
}


def _refusal(conn: Connection, ctx: Ctx, call: Call, value: Any) -> tuple[str, str, dict[str, Any]]:
    before = database_checksum(conn)
    with pytest.raises(BusError) as caught, conn.raw.transaction():
        call(conn, ctx, value)
    assert database_checksum(conn) == before
    error = caught.value
    return error.code, error.message.replace(str(value), "X"), error.data


@pytest.mark.parametrize("verb", _BY_TASK)
def test_a_task_of_another_project_is_a_task_that_does_not_exist(
    conn: Connection, two_projects: tuple[Scenario, Scenario], verb: str
) -> None:
    mine, _ = two_projects
    elsewhere, nowhere = 8, 1_000_008
    me = mine.caller.ctx
    refusals = [_refusal(conn, me, _BY_TASK[verb], task) for task in (elsewhere, nowhere)]
    assert refusals[0] == refusals[1]
    assert refusals[0][0] == "not_found"


@pytest.mark.parametrize("verb", _BY_POST)
def test_a_post_of_another_project_is_a_post_that_does_not_exist(
    conn: Connection, two_projects: tuple[Scenario, Scenario], verb: str
) -> None:
    mine, theirs = two_projects
    elsewhere = posts.list_posts(conn, theirs.caller.ctx, ref="SECRET").posts[0].post_id
    me = mine.caller.ctx
    refusals = [_refusal(conn, me, _BY_POST[verb], post) for post in (elsewhere, 10**9 + elsewhere)]
    assert refusals[0] == refusals[1]
    assert refusals[0][0] == "not_found"


@pytest.mark.parametrize("verb", _BY_NAME)
@pytest.mark.parametrize("form", ["{label}", "{handle}/{label}"])
def test_a_participant_of_another_project_is_unknown(
    conn: Connection, two_projects: tuple[Scenario, Scenario], verb: str, form: str
) -> None:
    mine, theirs = two_projects
    me = mine.caller.ctx
    names = [
        form.format(handle=handle, label=label)
        for handle, label in ((theirs.caller.handle, "secretary"), ("no-such-owner", "secretarx"))
    ]
    refusals = [_refusal(conn, me, _BY_NAME[verb], name) for name in names]
    assert refusals[0] == refusals[1]
    assert refusals[0][0] == "unknown_recipient"


def test_a_handle_of_another_owner_is_unknown_although_the_label_exists_here(
    conn: Connection, two_projects: tuple[Scenario, Scenario]
) -> None:
    mine, theirs = two_projects
    for verb, call in _BY_NAME.items():
        refusals = [
            _refusal(conn, mine.caller.ctx, call, f"{handle}/mate")
            for handle in (theirs.caller.handle, "no-such-owner")
        ]
        assert refusals[0] == refusals[1], verb
        assert refusals[0][0] == "unknown_recipient"


def test_a_number_that_both_projects_have_means_the_callers_own_row(
    conn: Connection, two_projects: tuple[Scenario, Scenario]
) -> None:
    mine, theirs = two_projects
    conn.raw.execute(
        "UPDATE post SET body = 'SECRET', tag = 'secret', ref = 'SECRET', to_lane = 'secret' WHERE project_id = %s",
        (theirs.project.id,),
    )
    conn.raw.execute("UPDATE task SET title = 'SECRET' WHERE project_id = %s", (theirs.project.id,))
    me = mine.caller.ctx
    assert mine.post_id == theirs.post_id
    # Filters read the caller's rows only, and rows of other projects do not count towards a page.
    assert [post.post_id for post in posts.list_posts(conn, me, limit=1).posts] == [mine.post_id]
    for filters in ({"tag": "secret"}, {"ref": "SECRET"}, {"to_lane": "secret"}, {"tag": "secret", "to_me": True}):
        assert posts.list_posts(conn, me, **filters).posts == []
    before = conn.fetch_all("SELECT t::text FROM task t WHERE project_id = %s ORDER BY id", (theirs.project.id,))
    posts.ack(conn, me, [mine.post_id])
    tasks.assign(conn, me, mine.open_task_id, "mate")
    tasks.start(conn, me, mine.assigned_task_id)
    tasks.ship(conn, me, mine.running_task_id)
    tasks.resolve(conn, me, mine.blocked_task_id)
    assert leases.release(conn, me, "src/mine.py").released == 1
    assert sequences.claim(conn, me, "adr").number == 12
    assert not posts.list_posts(conn, theirs.caller.ctx, to_me=True).posts[-1].acked
    assert (
        conn.fetch_all("SELECT t::text FROM task t WHERE project_id = %s ORDER BY id", (theirs.project.id,)) == before
    )
    assert [lease.surface for lease in leases.list_leases(conn, theirs.caller.ctx, surface="src").leases] == [
        "src/theirs.py",
        "src/mine.py",
    ]
    assert sequences.claim(conn, theirs.caller.ctx, "adr").number == 12


def test_no_read_shows_anything_of_another_project(conn: Connection, two_projects: tuple[Scenario, Scenario]) -> None:
    mine, theirs = two_projects
    me = mine.caller.ctx
    refusals = [
        participant_queries.whoami(conn, me),
        participant_queries.list_participants(conn, me),
        posts.list_posts(conn, me, limit=200),
        posts.list_posts(conn, me, to_me=True),
        posts.list_posts(conn, me, unacked_only=True),
        posts.list_posts(conn, me, tag="secret"),
        posts.list_posts(conn, me, ref="SECRET"),
        ledger.query_events(conn, me, limit=1000),
        ledger.query_events(conn, me, ref="SECRET"),
        ledger.query_events(conn, me, sequence="secret"),
        digest.read_digest(conn, me, since=0, limit=500),
        sequences.list_sequences(conn, me),
        sequences.list_latest_claims(conn, me),
        leases.list_leases(conn, me),
        leases.list_leases(conn, me, surface="secret"),
        task_queries.list_tasks(conn, me, limit=200),
        presence.list_active(conn, me),
        leases.acquire(conn, me, "secret/0"),
        tasks.start_next(conn, me),
    ]
    for answer in refusals:
        shown = repr(answer)
        for trace in ("SECRET", "secretary", theirs.caller.handle, theirs.project.name):
            assert trace not in shown, answer
    assert leases.acquire(conn, me, "secret").others == []


@pytest.mark.parametrize("verb", ENGINE_CALLS)
def test_no_verb_changes_anything_of_another_project(
    conn: Connection, projects_alike: tuple[Scenario, Scenario], verb: str
) -> None:
    mine, theirs = projects_alike
    projects.archive(conn, theirs.project.id, actor="cli")
    projects.reopen(conn, theirs.project.id, actor="cli")
    tables = conn.fetch_all(
        "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'project_id'"
        " WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"
    )
    assert len(tables) >= 14

    def rows() -> list[Any]:
        return [
            conn.fetch_all(f"SELECT t::text FROM {table} t WHERE project_id = %s ORDER BY 1", (theirs.project.id,))
            for (table,) in tables
        ]

    before = rows()
    ENGINE_CALLS[verb](conn, mine.caller.ctx, mine)
    assert rows() == before
