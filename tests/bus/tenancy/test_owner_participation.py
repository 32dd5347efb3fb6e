"""Owners who act in the web, under their handle."""

import pytest

from bus.coordination import leases, ledger, posts, task_queries, tasks
from bus.ctx import Ctx
from bus.db import Connection, Database
from bus.errors import OwnerSuspended
from bus.tenancy import (
    audit,
    owner_participation,
    owners,
    participant_queries,
    participants,
    participation_queries,
    participations,
    projects,
    tokens,
)
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import assert_ledger_consistent, assert_refused, database_checksum
from tests.assertions import list_events as events
from tests.concurrency import failures, run_numbered_concurrently
from tests.factories import Agent


@pytest.fixture
def owner(conn: Connection, project: Project) -> Ctx:
    return owner_participation.get_or_create_owner_context(conn, project.owner_id, project.id)


def test_a_suspended_owner_may_read_and_not_write(conn: Connection, project: Project, owner: Ctx, ada: Agent) -> None:
    owners.suspend(conn, project.owner_id, reason="test", actor="test")
    assert ledger.query_events(conn, owner).events == []
    assert posts.list_posts(conn, owner).posts == []
    for refused_call in (
        lambda: posts.create(conn, owner, "x", to_actor="ada"),
        lambda: tasks.create(conn, owner, "x"),
        lambda: ledger.query_events(conn, ada.ctx),
    ):
        with pytest.raises(OwnerSuspended), conn.raw.transaction():
            refused_call()


def test_the_participation_of_an_owner_is_created_once(conn: Connection, project: Project) -> None:
    assert owner_participation.find_owner_context(conn, project.owner_id, project.id) is None
    created = owner_participation.get_or_create_owner_context(conn, project.owner_id, project.id)
    before = database_checksum(conn)
    assert (
        owner_participation.get_or_create_owner_context(conn, project.owner_id, project.id)
        == created
        == owner_participation.find_owner_context(conn, project.owner_id, project.id)
    )
    assert database_checksum(conn) == before
    assert created.token_id is None
    me = participant_queries.whoami(conn, created)
    assert (me.actor, me.is_admin) == (project.owner, True)


def test_an_owner_is_one_participant_in_all_projects(conn: Connection, owner: Ctx, project: Project) -> None:
    second = projects.add(conn, project.owner_id, "second", actor="cli")
    assert (
        owner_participation.get_or_create_owner_context(conn, project.owner_id, second.id).participant_id
        == owner.participant_id
    )


def test_a_project_of_another_owner_is_not_found(conn: Connection, owner: Ctx, project: Project) -> None:
    stranger = factories.make_owner(conn)
    before = database_checksum(conn)
    for project_id in (project.id, 987654321):
        for call in (owner_participation.find_owner_context, owner_participation.get_or_create_owner_context):
            with assert_refused(conn, "not_found") as caught:
                call(conn, stranger.id, project_id)
            assert caught.value.message == "There is no such project."
    assert database_checksum(conn) == before


def test_concurrent_requests_create_one_participation_of_the_owner(db: Database) -> None:
    with db.transaction() as conn:
        owner = factories.make_owner(conn)
        both = [factories.make_project(conn, None, owner) for _ in range(2)]
    for _ in range(10):
        with db.transaction() as conn:
            both = [*both, factories.make_project(conn, None, owner)][-2:]
        contexts = run_numbered_concurrently(
            db,
            8,
            lambda conn, number: owner_participation.get_or_create_owner_context(conn, owner.id, both[number % 2].id),  # noqa: B023
        )
        assert failures(contexts) == []
        assert len({ctx.participant_id for ctx in contexts}) == 1
        assert len({ctx.participation_id for ctx in contexts}) == 2


def test_a_post_of_an_owner_can_be_answered_under_the_name_that_is_shown(
    conn: Connection, owner: Ctx, ada: Agent
) -> None:
    question = posts.create(conn, owner, "how far are you?", to_actor="ada")
    (received,) = posts.list_posts(conn, ada.ctx, to_me=True).posts
    assert received.sender == ada.handle
    answer = posts.create(conn, ada.ctx, "nearly there", to_actor=received.sender, reply_to=question.post_id)
    assert answer.recipients == 1
    (reply,) = posts.list_posts(conn, owner, to_me=True, unacked_only=True).posts
    assert (reply.sender, reply.to_actor) == (ada.actor, ada.handle)
    posts.ack(conn, owner, [answer.post_id])
    assert posts.list_posts(conn, ada.ctx).posts[0].acked_by == [ada.handle]


def test_an_owner_is_found_by_name_in_filters_and_owns_tasks(conn: Connection, owner: Ctx, ada: Agent) -> None:
    task = tasks.create(conn, ada.ctx, "approve it", owner=ada.handle)
    (listed,) = task_queries.list_tasks(conn, ada.ctx, owner=ada.handle).tasks
    assert (listed.task_id, listed.owner) == (task.task_id, ada.handle)
    tasks.assign(conn, ada.ctx, task.task_id, "ada")
    tasks.assign(conn, owner, task.task_id, ada.handle.upper())
    tasks.start(conn, owner, task.task_id)
    recorded = ledger.query_events(conn, ada.ctx, actor=ada.handle).events
    assert [(event.type, event.actor) for event in recorded] == [
        ("task_start", ada.handle),
        ("task_assign", ada.handle),
    ]
    assert [event.mine for event in ledger.query_events(conn, owner, actor=ada.handle).events] == [True, True]


def test_an_owner_is_listed_and_suggested_for_similar_names(conn: Connection, owner: Ctx, ada: Agent) -> None:
    (first, second) = participant_queries.list_participants(conn, ada.ctx).participants
    assert {first.actor, second.actor} == {ada.actor, ada.handle}
    listed = first if first.actor == ada.handle else second
    assert (listed.name, listed.kind, listed.is_admin, listed.token_active) == (ada.handle, "human", True, True)
    paged = participant_queries.list_participants(conn, ada.ctx, limit=1)
    assert participant_queries.list_participants(conn, ada.ctx, before=paged.next_before).participants == [second]
    with assert_refused(conn, "unknown_recipient") as caught:
        posts.create(conn, ada.ctx, "hello", to_actor=f"{ada.handle}x")
    assert ada.handle in caught.value.data["near"]


def test_no_participant_bears_the_handle_of_the_owner(conn: Connection, project: Project, root: Agent) -> None:
    for name in (project.owner, project.owner.upper()):
        with assert_refused(conn, "conflict"):
            participations.join(conn, project.id, name, actor="cli")
        with assert_refused(conn, "conflict"):
            participants.create(conn, project.owner_id, name, actor="cli")
        with assert_refused(conn, "conflict"):
            participants.rename(conn, project.owner_id, root.ctx.participant_id, name, actor="cli")


def test_a_handle_means_the_owner_although_a_participant_has_it_as_its_label(
    conn: Connection, project: Project, ada: Agent
) -> None:
    """Older data may hold such a participant, which its qualified name still reaches."""
    twin = factories.make_agent(conn, project, "twin")
    conn.execute("UPDATE participant SET label = %s WHERE id = %s", (ada.handle, twin.ctx.participant_id))
    conn.execute(
        "UPDATE participant_name SET label_key = %s WHERE participant_id = %s",
        (ada.handle, twin.ctx.participant_id),
    )
    assert participation_queries.get(conn, project.id, ada.handle).id == twin.ctx.participation_id
    owner = owner_participation.get_or_create_owner_context(conn, project.owner_id, project.id)
    assert participation_queries.get(conn, project.id, ada.handle).id == owner.participation_id
    qualified = f"{ada.handle}/{ada.handle}"
    assert participation_queries.get(conn, project.id, qualified).id == twin.ctx.participation_id


def test_the_owner_gets_no_token_and_keeps_its_rights(conn: Connection, owner: Ctx, root: Agent) -> None:
    before = database_checksum(conn)
    for call in (
        lambda: tokens.rotate_as_admin(conn, root.ctx, root.handle),
        lambda: tokens.revoke_as_admin(conn, root.ctx, root.handle),
        lambda: participations.remove(conn, owner.project_id, root.handle, actor="cli"),
        lambda: participations.set_admin(conn, owner.project_id, owner.participation_id, False, actor="cli"),
        lambda: tokens.add(conn, owner.project_id, owner.participation_id, actor="x"),
        lambda: participations.set_lane(conn, owner.project_id, owner.participation_id, "core", actor="x"),
    ):
        with assert_refused(conn, "forbidden"):
            call()
    with assert_refused(conn, "conflict"):
        participations.provision(conn, root.ctx, root.handle)
    assert database_checksum(conn) == before


def test_an_owner_reads_an_archived_project_and_does_not_write_to_it(
    conn: Connection, project: Project, ada: Agent
) -> None:
    projects.archive(conn, project.id, actor="cli")
    owner = owner_participation.get_or_create_owner_context(conn, project.owner_id, project.id)
    assert ledger.query_events(conn, owner).events == []
    with assert_refused(conn, "forbidden"):
        posts.create(conn, owner, "hello", to_actor="ada")


def test_an_owner_releases_the_lease_of_a_stuck_participant(
    conn: Connection, owner: Ctx, ada: Agent, bob: Agent
) -> None:
    held = leases.acquire(conn, ada.ctx, "src/api")
    kept = leases.acquire(conn, bob.ctx, "src/api")
    assert leases.force_release(conn, owner, held.fence)
    assert [lease.fence for lease in leases.list_leases(conn, owner).leases] == [kept.fence]
    seq, kind, payload = events(conn, owner.project_id)[-1]
    assert (kind, payload) == ("release", {"surface": "src/api", "held_by": ada.actor, "fence": held.fence})
    assert ledger.query_events(conn, owner, actor=ada.handle).events[0].id == seq
    (entry,) = [entry for entry in audit.list_for_owner(conn, owner.owner_id) if entry.action == "lease.release"]
    assert (entry.actor, entry.subject, entry.detail["held_by"]) == (ada.handle, "src/api", ada.actor)
    before = database_checksum(conn)
    assert not leases.force_release(conn, owner, held.fence)
    assert database_checksum(conn) == before
    for fence in (kept.fence + 1, 2**53 - 1):
        with assert_refused(conn, "not_found"):
            leases.force_release(conn, owner, fence)


def test_a_lease_of_another_project_is_not_found_and_agents_release_only_their_own(
    conn: Connection, owner: Ctx, ada: Agent
) -> None:
    other = factories.make_agent(conn)
    for number in range(3):
        fence = leases.acquire(conn, other.ctx, f"src/{number}").fence
    with assert_refused(conn, "not_found"):
        leases.force_release(conn, owner, fence)
    held = leases.acquire(conn, ada.ctx, "src")
    with assert_refused(conn, "forbidden"):
        leases.force_release(conn, ada.ctx, held.fence)


def test_a_lease_that_is_released_concurrently_ends_once(db: Database) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
        ada = factories.make_agent(conn, project)
        owner = owner_participation.get_or_create_owner_context(conn, project.owner_id, project.id)
    for _ in range(10):
        with db.transaction() as conn:
            fence = leases.acquire(conn, ada.ctx, "src").fence
        outcomes = run_numbered_concurrently(db, 5, lambda conn, n: leases.force_release(conn, owner, fence))  # noqa: B023
        assert sorted(map(str, outcomes)) == ["False"] * 4 + ["True"]
    with db.connection() as conn:
        assert assert_ledger_consistent(conn, project.id) == 20
