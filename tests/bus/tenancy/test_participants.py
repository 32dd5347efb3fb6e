"""Participants of a project: reads of the caller, and the acts of a project-admin."""

import pytest

from bus.coordination import posts, presence, sequences
from bus.db import Connection
from bus.errors import NotAuthenticated
from bus.rules.token_format import fingerprint as hashed
from bus.tenancy import (
    authentication,
    owners,
    participant_queries,
    participation_queries,
    participations,
    projects,
    token_store,
    tokens,
)
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import assert_ledger_consistent, assert_refused, database_checksum
from tests.factories import Agent


def test_whoami_returns_identity_project_lane_and_unread_count(conn: Connection, project: Project, bob: Agent) -> None:
    agent = factories.make_agent(conn, project, "api-agent", lane="core", is_admin=True)
    me = participant_queries.whoami(conn, agent.ctx)
    assert (me.actor, me.handle, me.label) == (f"{project.owner}/api-agent", project.owner, "api-agent")
    assert (me.project, me.is_admin, me.lane, me.unread) == (project.name, True, "core", 0)
    presence.register(conn, agent.ctx, "docs")
    posts.create(conn, bob.ctx, "hello", to_actor="api-agent")
    me = participant_queries.whoami(conn, agent.ctx)
    assert (me.lane, me.unread) == ("docs", 1)
    assert participant_queries.whoami(conn, bob.ctx).lane is None
    status = authentication.authenticate(conn, agent.ctx)
    assert (status.actor, status.is_admin, status.unread) == (me.actor, True, 1)


def test_participants_are_listed_by_name_with_lane_token_state_and_last_seen(
    conn: Connection, root: Agent, project: Project
) -> None:
    factories.make_agent(conn, project, "human", kind="human", lane="core")
    removed = factories.make_agent(conn, project, "removed")
    revoked = factories.make_agent(conn, project, "revoked")
    expired = factories.make_agent(conn, project, "expired")
    participations.remove(conn, project.id, "removed", actor="cli")
    tokens.revoke_all(conn, project.id, "revoked", actor="cli")
    conn.execute("UPDATE token SET expires_at = clock_timestamp() WHERE id = %s", (expired.ctx.token_id,))
    presence.register(conn, root.ctx, "docs")
    listed = participant_queries.list_participants(conn, root.ctx).participants
    assert [(p.name, p.kind, p.lane, p.is_admin, p.token_active, p.last_seen is not None) for p in listed] == [
        ("expired", "agent", None, False, False, False),
        ("human", "human", "core", False, True, False),
        ("revoked", "agent", None, False, False, False),
        ("root", "agent", "docs", True, True, True),
    ]
    assert listed[2].actor == revoked.actor
    assert removed.actor not in [p.actor for p in listed]


def test_participants_page_by_name(conn: Connection, root: Agent, project: Project) -> None:
    labels = [factories.make_agent(conn, project, label).label for label in ("a", "B", "a b", "ä", "z", "Z2", "日本")]
    seen: list[str] = []
    before = None
    while True:
        page = participant_queries.list_participants(conn, root.ctx, before=before, limit=3)
        assert len(page.participants) <= 3
        seen += [p.name for p in page.participants]
        before = page.next_before
        if before is None:
            break
    assert sorted(seen) == sorted([*labels, "root"])


def test_an_admin_adds_a_participant_with_a_valid_token(conn: Connection, root: Agent) -> None:
    issued = participations.provision(conn, root.ctx, "newcomer", kind="human", lane="core", is_admin=True)
    assert (issued.project, issued.participant, issued.kind, issued.lane, issued.is_admin) == (
        root.project, "newcomer", "human", "core", True,
    )  # fmt: skip
    agent = factories.authenticate_agent(conn, issued)
    me = participant_queries.whoami(conn, agent.ctx)
    assert (me.actor, me.is_admin, me.lane) == (issued.actor, True, "core")
    assert issued.token not in repr(issued)
    assert assert_ledger_consistent(conn, root.ctx.project_id) == 0


@pytest.mark.parametrize("name", ["ada", "ADA", "ａｄａ", "{handle}/ada", "{handle}/Ada"])
def test_a_participant_that_is_in_the_project_already_is_a_conflict_with_a_hint_to_rotate(
    conn: Connection, root: Agent, ada: Agent, name: str
) -> None:
    before = database_checksum(conn)
    with assert_refused(conn, "conflict") as caught:
        participations.provision(conn, root.ctx, name.format(handle=ada.handle))
    assert caught.value.hint == "rotate_token"
    assert database_checksum(conn) == before


def test_a_participant_of_another_project_joins_with_its_kind_unchanged(
    conn: Connection, root: Agent, project: Project
) -> None:
    owner = owners.get(conn, project.owner)
    second = factories.make_project(conn, None, owner)
    human = factories.make_agent(conn, second, "shared", kind="human", lane="there", is_admin=True)
    issued = participations.provision(conn, root.ctx, "SHARED", kind="agent", lane="here")
    here = factories.authenticate_agent(conn, issued)
    assert (issued.kind, issued.lane, issued.is_admin) == ("human", "here", False)
    assert here.ctx.participant_id == human.ctx.participant_id
    assert here.ctx.participation_id != human.ctx.participation_id
    # One participant, two participations: each token belongs to one project.
    assert participant_queries.whoami(conn, here.ctx).project == project.name
    assert participant_queries.whoami(conn, human.ctx).project == second.name
    tokens.revoke_all(conn, project.id, "shared", actor="cli")
    assert participant_queries.whoami(conn, human.ctx).is_admin


def test_another_owners_participant_cannot_be_named(conn: Connection, root: Agent) -> None:
    other = factories.make_agent(conn, None, "theirs")
    for name in (f"{other.handle}/theirs", "no-such/x"):
        with assert_refused(conn, "invalid_argument"):
            participations.provision(conn, root.ctx, name)
    # The same label is another participant.
    mine = factories.authenticate_agent(conn, participations.provision(conn, root.ctx, "theirs"))
    assert mine.ctx.participant_id != other.ctx.participant_id


def test_rotating_revokes_every_older_token_and_keeps_the_identity(conn: Connection, root: Agent, bob: Agent) -> None:
    sequences.claim(conn, bob.ctx, "s")
    second = token_store.generate(conn, bob.ctx.participation_id)
    fresh = factories.authenticate_agent(conn, tokens.rotate_as_admin(conn, root.ctx, "bob"))
    assert fresh.ctx.participation_id == bob.ctx.participation_id
    assert len({fresh.token, bob.token, second.text}) == 3
    for token in (bob.token, second.text):
        ctx = tokens.find_caller(conn, hashed(token))
        assert ctx is not None
        with pytest.raises(NotAuthenticated), conn.raw.transaction():
            participant_queries.whoami(conn, ctx)
    assert sequences.claim(conn, fresh.ctx, "s").number == 2


def test_an_admin_rotates_itself(conn: Connection, root: Agent) -> None:
    fresh = factories.authenticate_agent(conn, tokens.rotate_as_admin(conn, root.ctx, "root"))
    assert participant_queries.whoami(conn, fresh.ctx).is_admin
    with pytest.raises(NotAuthenticated), conn.raw.transaction():
        participant_queries.whoami(conn, root.ctx)


def test_revoking_returns_whether_any_token_was_live_and_is_audited_once(
    conn: Connection, root: Agent, bob: Agent
) -> None:
    assert tokens.revoke_as_admin(conn, root.ctx, "bob").revoked
    audited = "SELECT count(*) FROM audit WHERE project_id = %s AND action = 'token.revoke'"
    assert conn.fetch_one(audited, (root.ctx.project_id,)) == (1,)
    again = tokens.revoke_as_admin(conn, root.ctx, "bob")
    assert (again.project, again.participant, again.revoked) == (root.project, "bob", 0)
    assert conn.fetch_one(audited, (root.ctx.project_id,)) == (1,)


@pytest.mark.parametrize("verb", [tokens.rotate_as_admin, tokens.revoke_as_admin])
def test_a_name_that_no_participant_of_the_project_bears_is_unknown(
    conn: Connection, root: Agent, bob: Agent, verb: object
) -> None:
    other = factories.make_agent(conn, None, "elsewhere")
    participations.remove(conn, root.ctx.project_id, "bob", actor="cli")
    before = database_checksum(conn)
    for name in ("missing", "elsewhere", f"{other.handle}/elsewhere", f"{other.handle}/root", "bob"):
        with assert_refused(conn, "unknown_recipient"):
            verb(conn, root.ctx, name)  # type: ignore[operator]
    assert database_checksum(conn) == before


def test_a_removed_participant_rejoins_as_the_same_participation(
    conn: Connection, root: Agent, bob: Agent, project: Project
) -> None:
    sequences.claim(conn, bob.ctx, "s")
    participations.remove(conn, project.id, "bob", actor="cli")
    with pytest.raises(NotAuthenticated), conn.raw.transaction():
        participant_queries.whoami(conn, bob.ctx)
    back = factories.authenticate_agent(conn, participations.provision(conn, root.ctx, "bob", lane="docs"))
    assert back.ctx.participation_id == bob.ctx.participation_id
    assert participant_queries.whoami(conn, back.ctx).lane == "docs"
    # The old token stays revoked.
    with pytest.raises(NotAuthenticated), conn.raw.transaction():
        participant_queries.whoami(conn, bob.ctx)


def test_a_participant_that_rejoins_is_in_the_lane_that_is_granted_then(
    conn: Connection, root: Agent, bob: Agent, project: Project
) -> None:
    """A lane registered before the removal does not persist."""
    presence.register(conn, bob.ctx, "core")
    participations.remove(conn, project.id, "bob", actor="cli")
    issued = participations.provision(conn, root.ctx, "bob", lane="docs")
    back = factories.authenticate_agent(conn, issued)
    assert participant_queries.whoami(conn, back.ctx).lane == issued.lane == "docs"
    assert posts.create(conn, root.ctx, "x", to_lane="docs").recipients == 1
    assert posts.create(conn, root.ctx, "x", to_lane="core").recipients == 0


def test_removal_withdraws_the_unread_posts_of_the_lane(
    conn: Connection, root: Agent, bob: Agent, project: Project
) -> None:
    presence.register(conn, bob.ctx, "core")
    posts.create(conn, root.ctx, "for the lane", to_lane="core")
    named = posts.create(conn, root.ctx, "for bob", to_actor="bob")
    participations.remove(conn, project.id, "bob", actor="cli")
    back = factories.authenticate_agent(conn, participations.provision(conn, root.ctx, "bob", lane="docs"))
    inbox = posts.list_posts(conn, back.ctx, to_me=True, unacked_only=True)
    assert [post.post_id for post in inbox.posts] == [named.post_id]


def test_the_name_of_a_removed_participant_stays_reserved(
    conn: Connection, root: Agent, ada: Agent, bob: Agent, project: Project
) -> None:
    participations.remove(conn, project.id, "bob", actor="cli")
    conn.execute("UPDATE participant SET removed_at = clock_timestamp() WHERE id = %s", (bob.ctx.participant_id,))
    # The same holds for a name that a participant bore before it was renamed.
    participations.remove(conn, project.id, "ada", actor="cli")
    conn.execute("UPDATE participant SET label = 'chief' WHERE id = %s", (ada.ctx.participant_id,))
    before = database_checksum(conn)
    for name in ("bob", "BOB", "ada", "Ada"):
        with assert_refused(conn, "conflict") as caught:
            participations.provision(conn, root.ctx, name)
        assert caught.value.data["reason"] == "name_taken"
        assert "not handed out again" in caught.value.message
    assert database_checksum(conn) == before


def test_access_can_be_taken_away_in_an_archived_project(
    conn: Connection, ada: Agent, bob: Agent, root: Agent, project: Project
) -> None:
    """Tokens still read there, so a leaked one must be revocable without reopening the project."""
    projects.archive(conn, project.id, actor="cli")
    tokens.revoke_all(conn, project.id, "ada", actor="cli")
    participations.remove(conn, project.id, "bob", actor="cli")
    participations.set_admin(conn, project.id, "root", False, actor="cli")
    for agent in (ada, bob):
        with pytest.raises(NotAuthenticated), conn.raw.transaction():
            participant_queries.whoami(conn, agent.ctx)
    assert not participant_queries.whoami(conn, root.ctx).is_admin
    # Access cannot be issued, though.
    for call in (
        lambda: participations.join(conn, project.id, "new", actor="cli"),
        lambda: tokens.rotate(conn, project.id, "root", actor="cli"),
        lambda: participations.set_admin(conn, project.id, "root", True, actor="cli"),
    ):
        with assert_refused(conn, "forbidden"):
            call()


def test_participations_page_by_id(conn: Connection, root: Agent, ada: Agent, bob: Agent, project: Project) -> None:
    participations.remove(conn, project.id, "ada", actor="cli")
    listed = participation_queries.list_participations(conn, project.id)
    assert [participation.label for participation in listed] == ["root", "bob"]
    assert participation_queries.list_participations(conn, project.id, after=listed[0].id) == listed[1:]
    assert participation_queries.list_participations(conn, project.id, limit=1) == listed[:1]


def test_a_project_that_does_not_exist_is_not_found(conn: Connection) -> None:
    for call in (
        participations.join,
        tokens.rotate,
        tokens.revoke_all,
        participations.remove,
    ):
        with assert_refused(conn, "not_found"):
            call(conn, 2**40, "x", actor="cli")
