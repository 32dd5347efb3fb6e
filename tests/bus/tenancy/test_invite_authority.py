"""An invite grants nothing once its creator has lost the rights with which it was created."""

from collections.abc import Callable

import pytest

from bus.db import Connection
from bus.tenancy import audit, invite_queries, invite_redemption, invites, participants, participations, tokens
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import assert_refused, database_checksum
from tests.factories import Agent


def _own_token_id(agent: Agent) -> int:
    assert agent.ctx.token_id is not None
    return agent.ctx.token_id


_LOSSES: dict[str, Callable[[Connection, Project, Agent], object]] = {
    "removed": lambda conn, project, agent: participations.remove(conn, project.id, agent.label, actor="owner"),
    "demoted": lambda conn, project, agent: participations.set_admin(
        conn, project.id, agent.label, False, actor="owner"
    ),
    "token revoked": lambda conn, project, agent: tokens.revoke(conn, project.id, _own_token_id(agent), actor="owner"),
    "tokens revoked": lambda conn, project, agent: tokens.revoke_all(conn, project.id, agent.label, actor="owner"),
    "rotated": lambda conn, project, agent: tokens.rotate(conn, project.id, agent.label, actor="owner"),
}


@pytest.fixture
def admin(conn: Connection, project: Project) -> Agent:
    return factories.make_agent(conn, project, "deputy", is_admin=True)


def _assert_void(conn: Connection, code: str) -> None:
    before = database_checksum(conn)
    for name in ("late", "later"):
        with assert_refused(conn, "not_found") as caught:
            invite_redemption.redeem(conn, code, name=name)
        assert caught.value.data["reason"] == "invalid"
    with assert_refused(conn, "not_found"):
        invite_redemption.get_offer(conn, code)
    assert database_checksum(conn) == before


@pytest.mark.parametrize("loss", _LOSSES)
@pytest.mark.parametrize("grants_admin", [True, False])
def test_an_invite_ends_with_the_rights_of_its_creator(
    conn: Connection, project: Project, admin: Agent, loss: str, grants_admin: bool
) -> None:
    created = invites.create(conn, admin.ctx, is_admin=grants_admin, uses=3)
    invite_redemption.redeem(conn, created.code, name="in-time")
    _LOSSES[loss](conn, project, admin)
    _assert_void(conn, created.code)
    assert invite_queries.list_invites(conn, project.id)[0].state == "revoked"
    ended = [entry for entry in audit.list_for_owner(conn, project.owner_id) if entry.action == "invite.revoke"]
    assert [(entry.actor, entry.detail["reason"]) for entry in ended] == [
        ("owner", f"{admin.actor} may no longer invite")
    ]
    # Rights that are granted again do not revive it.
    if loss == "removed":
        participations.join(conn, project.id, admin.label, is_admin=True, actor="owner")
    else:
        participations.set_admin(conn, project.id, admin.label, True, actor="owner")
    _assert_void(conn, created.code)


@pytest.mark.parametrize("loss", _LOSSES)
def test_redemption_itself_asks_for_the_rights_of_the_creator(
    conn: Connection, project: Project, admin: Agent, loss: str
) -> None:
    created = invites.create(conn, admin.ctx)
    _LOSSES[loss](conn, project, admin)
    # As if the loss had not ended the invite.
    conn.execute("UPDATE invite SET revoked_at = NULL WHERE id = %s", (created.id,))
    _assert_void(conn, created.code)
    assert invite_queries.list_invites(conn, project.id)[0].state == "revoked"


def test_an_invite_is_void_when_the_token_of_its_creator_has_expired(
    conn: Connection, project: Project, admin: Agent
) -> None:
    created = invites.create(conn, admin.ctx)
    conn.execute("UPDATE token SET expires_at = clock_timestamp() WHERE id = %s", (admin.ctx.token_id,))
    _assert_void(conn, created.code)


def test_an_invite_is_void_when_its_creator_is_removed_from_all_projects(
    conn: Connection, project: Project, admin: Agent
) -> None:
    created = invites.create(conn, admin.ctx)
    participants.remove(conn, project.owner_id, admin.ctx.participant_id, actor="owner")
    _assert_void(conn, created.code)


def test_the_answer_of_a_lost_redemption_is_not_given_after_the_loss(
    conn: Connection, project: Project, admin: Agent
) -> None:
    created = invites.create(conn, admin.ctx, uses=2)
    nonce = "n" * 32
    invite_redemption.redeem(conn, created.code, name="guest", nonce=nonce)
    participations.set_admin(conn, project.id, admin.label, False, actor="owner")
    with assert_refused(conn, "not_found"):
        invite_redemption.redeem(conn, created.code, name="guest", nonce=nonce)


def test_other_invites_stay_open(conn: Connection, project: Project, admin: Agent, root: Agent) -> None:
    """Those of the owner, of other admins, and of a second token of the same admin."""
    second = factories.authenticate_agent(conn, tokens.add(conn, project.id, admin.label, actor="owner"))
    kept = [
        invites.create_for_owner(conn, project.id, is_admin=True, actor=project.owner),
        invites.create(conn, root.ctx),
        invites.create(conn, second.ctx),
    ]
    tokens.revoke(conn, project.id, _own_token_id(admin), actor="owner")
    for number, created in enumerate(kept):
        invite_redemption.redeem(conn, created.code, name=f"guest-{number}")
