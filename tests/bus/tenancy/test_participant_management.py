"""Participants, participations and tokens as their owner manages them; history survives renames and removals."""

from datetime import timedelta

import pytest

from bus.coordination import ledger, posts, presence
from bus.db import Connection, Database
from bus.errors import BusError, NotAuthenticated
from bus.tenancy import (
    owner_participation,
    participant_queries,
    participants,
    participation_queries,
    participations,
    projects,
    tokens,
)
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import assert_refused, database_checksum
from tests.concurrency import failures, run_concurrently, run_numbered_concurrently, successes
from tests.factories import Agent


def test_a_participant_is_created_without_a_project_and_joins_later(conn: Connection, project: Project) -> None:
    number = participants.create(conn, project.owner_id, "carol", kind="human", actor=project.owner)
    summary = participant_queries.get_participant_summary(conn, project.owner_id, number)
    assert (summary.actor, summary.kind, summary.project_count) == (f"{project.owner}/carol", "human", 0)
    assert participant_queries.list_participants_outside_project(conn, project.owner_id, project.id) == [
        (number, "carol")
    ]
    participations.join(conn, project.id, "carol", lane="core", actor="cli")
    assert participant_queries.list_participants_outside_project(conn, project.owner_id, project.id) == []
    (joined,) = participant_queries.list_participant_projects(conn, project.owner_id, number)
    assert (joined.project, joined.lane, joined.live_token_count) == (project.name, "core", 1)
    for name in ("carol", "CAROL"):
        with assert_refused(conn, "conflict"):
            participants.create(conn, project.owner_id, name, actor=project.owner)


def test_renaming_keeps_history_and_both_names(conn: Connection, project: Project, ada: Agent, bob: Agent) -> None:
    posts.create(conn, ada.ctx, "hello", to_actor="bob")
    assert participants.rename(conn, project.owner_id, ada.ctx.participant_id, "lovelace", actor=project.owner)
    assert not participants.rename(conn, project.owner_id, ada.ctx.participant_id, "lovelace", actor=project.owner)
    assert participant_queries.whoami(conn, ada.ctx).label == "lovelace"
    for name in ("ada", "lovelace"):
        (event,) = ledger.query_events(conn, bob.ctx, actor=name, type="post").events
        assert event.actor == ada.actor
        assert posts.create(conn, bob.ctx, "hi", to_actor=name).recipients == 1
    for name in ("ada", "ADA", "bob"):
        with assert_refused(conn, "conflict"):
            participants.create(conn, project.owner_id, name, actor=project.owner)
    with assert_refused(conn, "conflict"):
        participants.rename(conn, project.owner_id, bob.ctx.participant_id, "ada", actor=project.owner)
    assert participants.rename(conn, project.owner_id, ada.ctx.participant_id, "Ada", actor=project.owner)
    assert participant_queries.whoami(conn, ada.ctx).label == "Ada"


def test_a_removed_participant_is_refused_everywhere_and_its_name_stays_reserved(
    conn: Connection, project: Project
) -> None:
    agent = factories.make_agent(conn, project, "gone")
    second = projects.add(conn, project.owner_id, "second", actor="cli")
    elsewhere = factories.make_agent(conn, second, "gone")
    participants.remove(conn, project.owner_id, agent.ctx.participant_id, actor=project.owner)
    for caller in (agent, elsewhere):
        with pytest.raises(NotAuthenticated), conn.raw.transaction():
            participant_queries.whoami(conn, caller.ctx)
    for call in (
        lambda: participants.create(conn, project.owner_id, "Gone", actor="x"),
        lambda: participations.join(conn, project.id, "gone", actor="cli"),
    ):
        with assert_refused(conn, "conflict"):
            call()
    assert (
        participant_queries.get_participant_summary(conn, project.owner_id, agent.ctx.participant_id).removed_at
        is not None
    )
    assert tokens.list_tokens(conn, agent.ctx.participation_id)[0].state == "revoked"
    with assert_refused(conn, "not_found"):
        participants.remove(conn, project.owner_id, agent.ctx.participant_id, actor="x")


def test_the_owner_is_neither_renamed_nor_removed_as_a_participant(conn: Connection, project: Project) -> None:
    me = owner_participation.get_or_create_owner_context(conn, project.owner_id, project.id).participant_id
    for call in (
        lambda: participants.rename(conn, project.owner_id, me, "x", actor="x"),
        lambda: participants.remove(conn, project.owner_id, me, actor="x"),
    ):
        with assert_refused(conn, "not_found"):
            call()


def test_objects_of_another_owner_are_not_found(conn: Connection, project: Project, ada: Agent) -> None:
    stranger = factories.make_project(conn).owner_id
    before = database_checksum(conn)
    ids = (ada.ctx.participant_id, 10**15)
    for number in ids:
        for call in (
            lambda n: participant_queries.get_participant_summary(conn, stranger, n),
            lambda n: participants.rename(conn, stranger, n, "x", actor="x"),
            lambda n: participants.remove(conn, stranger, n, actor="x"),
        ):
            with assert_refused(conn, "not_found") as caught:
                call(number)
            assert caught.value.message == "There is no such participant."
        assert participant_queries.list_participant_projects(conn, stranger, number) == []
    for number in (ada.ctx.participation_id, 10**15):
        with assert_refused(conn, "not_found"):
            participant_queries.get_participation_detail(conn, stranger, project.id, number)
    assert participant_queries.list_participation_details(conn, stranger, project.id) == []
    assert database_checksum(conn) == before


def test_of_concurrent_requests_for_a_name_one_succeeds(db: Database) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
    for round_ in range(15):
        with db.transaction() as conn:
            ids = [participants.create(conn, project.owner_id, f"p-{round_}-{n}", actor="x") for n in range(3)]
        outcomes = run_numbered_concurrently(
            db,
            4,
            lambda conn, n: (
                participants.rename(conn, project.owner_id, ids[n], f"new-{round_}", actor="x")  # noqa: B023
                if n < 3
                else participants.create(conn, project.owner_id, f"New-{round_}", actor="x")  # noqa: B023
            ),
        )
        assert len(successes(outcomes)) == 1
        assert {error.code for error in failures(outcomes) if isinstance(error, BusError)} == {"conflict"}


def test_a_participant_that_is_removed_while_it_joins_is_refused_everywhere(db: Database) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
    for round_ in range(20):
        with db.transaction() as conn:
            number = participants.create(conn, project.owner_id, f"p-{round_}", actor="x")
        granted, removed = run_concurrently(
            db,
            lambda conn: participations.join(conn, project.id, f"p-{round_}", actor="cli"),  # noqa: B023
            lambda conn: participants.remove(conn, project.owner_id, number, actor="x"),  # noqa: B023
        )
        assert removed is None
        with db.connection() as conn:
            if isinstance(granted, BusError):
                assert granted.code == "conflict"
            else:
                with pytest.raises(NotAuthenticated):
                    participant_queries.whoami(conn, factories.authenticate_agent(conn, granted).ctx)
            assert participation_queries.find(conn, project.id, f"p-{round_}") is None


def test_participants_page_newest_first(conn: Connection, project: Project) -> None:
    created = [participants.create(conn, project.owner_id, f"p-{n}", actor="x") for n in range(5)]
    first = participant_queries.list_participant_summaries(conn, project.owner_id, limit=3)
    assert [summary.id for summary in first] == created[:1:-1]
    assert [
        summary.id
        for summary in participant_queries.list_participant_summaries(conn, project.owner_id, before=first[-1].id)
    ] == created[1::-1]


def test_a_participation_detail_shows_lane_presence_tokens_and_unread_posts(
    conn: Connection, project: Project, ada: Agent
) -> None:
    bob = factories.make_agent(conn, project, "bob", lane="web")
    presence.register(conn, bob.ctx, "core", status="reviewing")
    posts.create(conn, ada.ctx, "hello", to_actor="bob")
    tokens.add(conn, project.id, bob.ctx.participation_id, label="laptop", actor="x")
    owner = owner_participation.get_or_create_owner_context(conn, project.owner_id, project.id)
    detail = participant_queries.get_participation_detail(conn, project.owner_id, project.id, bob.ctx.participation_id)
    assert (detail.granted_lane, detail.lane, detail.status, detail.is_active) == ("web", "core", "reviewing", True)
    assert (detail.live_token_count, detail.unread_count, detail.is_owner) == (2, 1, False)
    listed = participant_queries.list_participation_details(conn, project.owner_id, project.id)
    assert [detail.id for detail in listed] == sorted((detail.id for detail in listed), reverse=True)
    assert [detail.is_owner for detail in listed if detail.id == owner.participation_id] == [True]
    assert participant_queries.list_participation_details(conn, project.owner_id, project.id, limit=1) == listed[:1]
    assert (
        participant_queries.list_participation_details(conn, project.owner_id, project.id, before=listed[0].id)
        == listed[1:]
    )


def test_a_token_has_a_label_and_an_expiry_and_is_revoked_alone(conn: Connection, project: Project, ada: Agent) -> None:
    added = tokens.add(conn, project.id, "ada", label="ci", ttl=timedelta(hours=1), actor=project.owner)
    second = factories.authenticate_agent(conn, added)
    assert participant_queries.whoami(conn, second.ctx).actor == ada.actor
    newest, oldest = tokens.list_tokens(conn, ada.ctx.participation_id)
    assert (newest.label, newest.state, oldest.label) == ("ci", "live", "")
    assert newest.expires_at is not None
    assert newest.expires_at - newest.created_at > timedelta(minutes=59)
    assert tokens.revoke(conn, project.id, newest.id, actor=project.owner)
    before = database_checksum(conn)
    assert not tokens.revoke(conn, project.id, newest.id, actor=project.owner)
    assert database_checksum(conn) == before
    participant_queries.whoami(conn, ada.ctx)
    with pytest.raises(NotAuthenticated), conn.raw.transaction():
        participant_queries.whoami(conn, second.ctx)
    short = tokens.rotate(conn, project.id, "ada", ttl=timedelta(0), actor=project.owner)
    with pytest.raises(NotAuthenticated), conn.raw.transaction():
        participant_queries.whoami(conn, factories.authenticate_agent(conn, short).ctx)
    assert tokens.list_tokens(conn, ada.ctx.participation_id, limit=1)[0].state == "expired"


def test_a_token_of_another_project_is_not_found(conn: Connection, project: Project, ada: Agent) -> None:
    other = factories.make_agent(conn)
    before = database_checksum(conn)
    assert other.ctx.token_id is not None
    for token_id in (other.ctx.token_id, 10**15):
        with assert_refused(conn, "not_found"):
            tokens.revoke(conn, project.id, token_id, actor="x")
    assert database_checksum(conn) == before


def test_granting_a_lane_moves_posts_unless_another_lane_is_registered(
    conn: Connection, project: Project, ada: Agent
) -> None:
    member = factories.make_agent(conn, project, "member", lane="old")
    posts.create(conn, ada.ctx, "for old", to_lane="old")
    waiting = posts.create(conn, ada.ctx, "for new", to_lane="new")
    participations.set_lane(conn, project.id, member.ctx.participation_id, "new", actor="x")
    inbox = posts.list_posts(conn, member.ctx, to_me=True, unacked_only=True).posts
    assert [post.post_id for post in inbox] == [waiting.post_id]
    presence.register(conn, member.ctx, "new")
    participations.set_lane(conn, project.id, "member", "old", actor="x")
    assert participant_queries.whoami(conn, member.ctx).lane == "new"
    inbox = posts.list_posts(conn, member.ctx, to_me=True, unacked_only=True).posts
    assert [post.post_id for post in inbox] == [waiting.post_id]
    participations.set_lane(conn, project.id, "member", None, actor="x")
    assert participant_queries.whoami(conn, member.ctx).lane == "new"


def test_tokens_are_listed_newest_first_and_paged_by_id(conn: Connection, project: Project, ada: Agent) -> None:
    for _ in range(3):
        tokens.rotate(conn, project.id, "ada", actor="x")
    whole = tokens.list_tokens(conn, ada.ctx.participation_id)
    assert [token.state for token in whole] == ["live", "revoked", "revoked", "revoked"]
    first = tokens.list_tokens(conn, ada.ctx.participation_id, limit=3)
    second = tokens.list_tokens(conn, ada.ctx.participation_id, before=first[-1].id, limit=3)
    assert first + second == whole
