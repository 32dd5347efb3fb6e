"""Invites: bounded in uses and time; a refused redemption uses nothing."""

from typing import Any

import pytest

from bus.coordination import posts
from bus.db import Connection
from bus.operations import project_purge
from bus.rules.token_format import fingerprint
from bus.tenancy import (
    invite_queries,
    invite_redemption,
    invites,
    owners,
    participant_queries,
    participations,
    projects,
)
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import assert_refused, database_checksum
from tests.factories import Agent


def _state(conn: Connection, project: Project) -> str:
    return invite_queries.list_invites(conn, project.id, limit=1)[0].state


def _expire(conn: Connection, invite: invites.CreatedInvite) -> None:
    conn.execute("UPDATE invite SET expires_at = clock_timestamp() WHERE id = %s", (invite.id,))


def test_an_invite_adds_a_participant_under_a_name_that_the_redeemer_chooses(
    conn: Connection, root: Agent, project: Project
) -> None:
    waiting = posts.create(conn, root.ctx, "welcome", to_lane="core")
    created = invites.create(conn, root.ctx, kind="human", lane="core", is_admin=True)
    assert (created.project, created.uses, created.participant_name) == (project.name, 1, None)
    assert created.code not in repr(created)
    agent = factories.authenticate_agent(conn, invite_redemption.redeem(conn, created.code, name="newcomer"))
    me = participant_queries.whoami(conn, agent.ctx)
    assert (me.actor, me.lane, me.is_admin, me.unread) == (f"{project.owner}/newcomer", "core", True, 1)
    assert posts.list_posts(conn, agent.ctx, to_me=True).posts[0].post_id == waiting.post_id
    (kind,) = conn.fetch_one("SELECT kind FROM participant WHERE id = %s", (agent.ctx.participant_id,))
    assert kind == "human"


def test_only_the_hash_of_a_code_is_stored(conn: Connection, root: Agent) -> None:
    created = invites.create(conn, root.ctx)
    row, sha256 = conn.fetch_one("SELECT i::text, sha256 FROM invite i WHERE id = %s", (created.id,))
    assert created.code not in row
    assert sha256 == fingerprint(created.code)
    audited = conn.fetch_one("SELECT string_agg(a::text, '') FROM audit a")[0]
    assert created.code not in audited


def test_an_invite_is_exhausted_after_its_uses(conn: Connection, root: Agent, project: Project) -> None:
    created = invites.create(conn, root.ctx, uses=2)
    assert _state(conn, project) == "open"
    invite_redemption.redeem(conn, created.code, name="one")
    assert _state(conn, project) == "open"
    invite_redemption.redeem(conn, created.code, name="two")
    assert _state(conn, project) == "exhausted"
    before = database_checksum(conn)
    with assert_refused(conn, "wrong_state") as caught:
        invite_redemption.redeem(conn, created.code, name="three")
    assert caught.value.data["reason"] == "exhausted"
    assert database_checksum(conn) == before
    (listed,) = invite_queries.list_invites(conn, project.id)
    assert (listed.uses, listed.used, listed.created_by) == (2, 2, root.actor)
    redeemed = conn.fetch_all("SELECT actor FROM invite_redemption WHERE invite_id = %s ORDER BY id", (created.id,))
    assert redeemed == [(f"{project.owner}/one",), (f"{project.owner}/two",)]


def test_an_invite_expires(conn: Connection, root: Agent, project: Project) -> None:
    created = invites.create(conn, root.ctx, ttl_hours=720)
    (hours,) = conn.fetch_one(
        "SELECT round(extract(epoch FROM expires_at - created_at) / 3600)::integer FROM invite WHERE id = %s",
        (created.id,),
    )
    assert hours == 720
    _expire(conn, created)
    assert _state(conn, project) == "expired"
    before = database_checksum(conn)
    with assert_refused(conn, "wrong_state") as caught:
        invite_redemption.redeem(conn, created.code, name="late")
    assert caught.value.data["reason"] == "expired"
    assert database_checksum(conn) == before


def test_a_revoked_invite_is_refused_like_an_unknown_code(conn: Connection, root: Agent, project: Project) -> None:
    created = invites.create(conn, root.ctx)
    assert invites.revoke(conn, project.id, created.id, actor="ada")
    assert not invites.revoke(conn, project.id, created.id, actor="ada")
    assert _state(conn, project) == "revoked"
    errors = []
    for code in (created.code, "inv_00000000000000000000000000", "", "\ud800", "x" * 10_000):
        with assert_refused(conn, "not_found") as caught:
            invite_redemption.redeem(conn, code, name="late")
        errors.append((caught.value.message, caught.value.data))
    assert errors[1:] == errors[:-1]
    audited = conn.fetch_one("SELECT count(*) FROM audit WHERE action = 'invite.revoke'")
    assert audited == (1,)


def test_an_invite_of_another_project_cannot_be_revoked(conn: Connection, root: Agent) -> None:
    other = factories.make_agent(conn, None, "root", is_admin=True)
    created = invites.create(conn, other.ctx)
    before = database_checksum(conn)
    with assert_refused(conn, "not_found"):
        invites.revoke(conn, root.ctx.project_id, created.id, actor="ada")
    assert database_checksum(conn) == before


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"revoked": True, "used": True, "expired": True}, "revoked"),
        ({"used": True, "expired": True}, "exhausted"),
        ({"expired": True}, "expired"),
        ({}, "open"),
    ],
)
def test_of_several_states_the_strongest_is_shown(
    conn: Connection, root: Agent, project: Project, change: dict[str, bool], state: str
) -> None:
    created = invites.create(conn, root.ctx)
    if change.get("used"):
        invite_redemption.redeem(conn, created.code, name="one")
    if change.get("expired"):
        _expire(conn, created)
    if change.get("revoked"):
        invites.revoke(conn, project.id, created.id, actor="cli")
    assert _state(conn, project) == state


def test_an_invite_that_is_locked_to_a_name_adds_that_name(conn: Connection, root: Agent) -> None:
    created = invites.create(conn, root.ctx, participant_name="reviewer")
    issued = invite_redemption.redeem(conn, created.code, name="another name")
    assert issued.participant == "reviewer"
    other = invites.create(conn, root.ctx, participant_name="second")
    assert invite_redemption.redeem(conn, other.code).participant == "second"


def test_an_invite_that_is_locked_to_a_name_has_one_use_and_a_free_name(conn: Connection, root: Agent) -> None:
    with assert_refused(conn, "invalid_argument"):
        invites.create(conn, root.ctx, participant_name="reviewer", uses=2)
    for taken in ("root", "ROOT"):
        with assert_refused(conn, "conflict") as caught:
            invites.create(conn, root.ctx, participant_name=taken)
        assert caught.value.data["reason"] == "name_taken"


@pytest.mark.parametrize("name", [None, "", "   "])
def test_a_name_is_required_where_the_invite_has_none(conn: Connection, root: Agent, name: str | None) -> None:
    created = invites.create(conn, root.ctx)
    with assert_refused(conn, "invalid_argument") as caught:
        invite_redemption.redeem(conn, created.code, name=name)
    assert caught.value.data["reason"] == "name_required"


@pytest.mark.parametrize("name", ["a/b", "x" * 65, "a\0b", "a\u202eb", "\ud800"])
def test_a_malformed_name_uses_nothing(conn: Connection, root: Agent, project: Project, name: str) -> None:
    created = invites.create(conn, root.ctx)
    with assert_refused(conn, "invalid_argument"):
        invite_redemption.redeem(conn, created.code, name=name)
    assert _state(conn, project) == "open"


def test_a_taken_name_uses_nothing(conn: Connection, root: Agent, project: Project) -> None:
    """A participant of the owner in another project has taken the name too: an invite adds new participants only."""
    second = factories.make_project(conn, None, owners.get(conn, project.owner))
    factories.make_agent(conn, second, "elsewhere")
    factories.make_agent(conn, project, "gone")
    participations.remove(conn, project.id, "gone", actor="cli")
    created = invites.create(conn, root.ctx)
    for name in ("root", "Root", "elsewhere", "gone"):
        with assert_refused(conn, "conflict") as caught:
            invite_redemption.redeem(conn, created.code, name=name)
        assert caught.value.data["reason"] == "name_taken"
    assert _state(conn, project) == "open"
    invite_redemption.redeem(conn, created.code, name="free")


def test_an_invite_of_an_archived_project_is_refused(conn: Connection, root: Agent, project: Project) -> None:
    created = invites.create(conn, root.ctx)
    projects.archive(conn, project.id, actor="cli")
    with assert_refused(conn, "forbidden"):
        invite_redemption.redeem(conn, created.code, name="late")
    assert _state(conn, project) == "open"
    # The owner may still revoke it.
    assert invites.revoke(conn, project.id, created.id, actor="cli")


def test_an_invite_of_a_project_that_is_being_purged_is_invalid(
    conn: Connection, root: Agent, project: Project
) -> None:
    created = invites.create(conn, root.ctx)
    project_purge.begin_purge(conn, project.id, actor="cli")
    with assert_refused(conn, "not_found"):
        invite_redemption.redeem(conn, created.code, name="late")


@pytest.mark.parametrize(
    "bad",
    [
        {"uses": 0}, {"uses": 51}, {"uses": -1}, {"uses": 2**53}, {"ttl_hours": 0}, {"ttl_hours": 721},
        {"ttl_hours": 2**31}, {"kind": "robot"}, {"kind": ""}, {"lane": ""}, {"lane": "x" * 65}, {"lane": "a\0b"},
        {"participant_name": ""}, {"participant_name": "a/b"}, {"participant_name": "\u200b"},
    ],
)  # fmt: skip
def test_malformed_invites_are_refused(conn: Connection, root: Agent, bad: dict[str, Any]) -> None:
    before = database_checksum(conn)
    with assert_refused(conn, "invalid_argument"):
        invites.create(conn, root.ctx, **bad)
    assert database_checksum(conn) == before


def test_invites_page_newest_first(conn: Connection, root: Agent, project: Project) -> None:
    created = [invites.create(conn, root.ctx, uses=uses).id for uses in (50, 1, 2, 3)]
    first = invite_queries.list_invites(conn, project.id, limit=3)
    assert [invite.id for invite in first] == created[:0:-1]
    assert [invite.id for invite in invite_queries.list_invites(conn, project.id, before=first[-1].id)] == created[:1]
