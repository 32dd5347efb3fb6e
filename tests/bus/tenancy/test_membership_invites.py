"""Invites of persons to a project: who accepts them, once, and when they end."""

from typing import Any

import pytest

from bus.errors import OwnerSuspended
from bus.tenancy import (
    invite_queries,
    invite_redemption,
    invites,
    memberships,
    owners,
    projects,
)
from bus.tenancy.owners import Owner
from tests import factories
from tests.assertions import assert_refused, database_checksum
from tests.bus.tenancy.project_team import Team, accept, invite_person


def test_an_invite_of_a_person_is_accepted_once_and_repeating_it_uses_nothing(team: Team) -> None:
    code, carol, dan = invite_person(team, "lead"), factories.make_owner(team.conn), factories.make_owner(team.conn)
    offer = invite_redemption.get_offer(team.conn, code)
    assert (offer.role, offer.created_by, offer.owner) == ("lead", "ada", "ada")
    assert {accept(team, code, carol) for _ in range(2)} == {team.project.id}
    assert memberships.find_role(team.conn, carol.id, team.project.id) == "lead"
    with assert_refused(team.conn, "wrong_state") as caught:
        accept(team, code, dan)
    assert caught.value.data["reason"] == "exhausted"
    listed = invite_queries.list_invites(team.conn, team.project.id, for_people=True)[0]
    assert [one.accepted_by for one in listed.redemptions] == [carol.handle]
    assert invite_queries.list_invites(team.conn, team.project.id) == []


def test_an_invite_of_a_person_gives_no_token(team: Team) -> None:
    code = invite_person(team)
    before = database_checksum(team.conn)
    with assert_refused(team.conn, "forbidden") as caught:
        invite_redemption.redeem(team.conn, code, name="x")
    assert caught.value.data["reason"] == "sign_in_required"
    assert database_checksum(team.conn) == before


def test_an_invite_for_an_address_is_accepted_with_that_address_alone(team: Team) -> None:
    carol, eve = factories.make_owner(team.conn, "carol"), factories.make_owner(team.conn, "eve")
    code = invite_person(team, email="Carol@example.org")
    with assert_refused(team.conn, "forbidden") as caught:
        accept(team, code, eve)
    assert caught.value.data["reason"] == "wrong_email"
    assert accept(team, code, carol) == team.project.id


def test_the_owner_and_members_use_no_invite(team: Team) -> None:
    code = invite_person(team, "viewer")
    for owner in (team.ada, team.bob):
        assert accept(team, code, owner) == team.project.id
    assert invite_queries.list_invites(team.conn, team.project.id, for_people=True)[0].used == 0
    assert memberships.find_role(team.conn, team.bob.id, team.project.id) == "member"


def _end(change: str, team: Team, lead: Owner, code_id: int) -> None:
    conn, project_id = team.conn, team.project.id
    acting: dict[str, Any] = {"acting_owner_id": team.ada.id, "actor": "ada"}
    if change == "demoted":
        memberships.set_role(conn, project_id, lead.id, "member", **acting)
        memberships.set_role(conn, project_id, lead.id, "lead", **acting)
    elif change == "removed":
        memberships.remove(conn, project_id, lead.id, **acting)
    elif change == "suspended":
        owners.suspend(conn, lead.id, reason="abuse", actor="op")
    elif change == "revoked":
        invites.revoke(conn, project_id, code_id, actor="ada")
    elif change == "archived":
        projects.archive(conn, project_id, actor="ada")
    else:
        owners.suspend(conn, team.ada.id, reason="credits", actor="op")


@pytest.mark.parametrize("change", ["demoted", "removed", "suspended", "revoked", "archived", "owner suspended"])
def test_an_invite_ends_with_the_role_of_its_giver(team: Team, change: str) -> None:
    lead = factories.make_member(team.conn, team.project, "lead", "lea")
    code = invite_person(team, by=lead, uses=2)
    accept(team, code, factories.make_owner(team.conn))
    _end(change, team, lead, invite_queries.list_invites(team.conn, team.project.id, for_people=True)[0].id)
    late = factories.make_owner(team.conn)
    before = database_checksum(team.conn)
    with pytest.raises(Exception, match=r"not valid|archived|suspended"), team.conn.raw.transaction():
        accept(team, code, late)
    assert database_checksum(team.conn) == before


def test_a_suspended_person_does_not_join(team: Team) -> None:
    carol = factories.make_owner(team.conn)
    owners.suspend(team.conn, carol.id, reason="abuse", actor="op")
    code = invite_person(team)
    with pytest.raises(OwnerSuspended), team.conn.raw.transaction():
        accept(team, code, carol)
