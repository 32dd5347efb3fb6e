"""A project with a member, and invites of persons to it."""

from dataclasses import dataclass
from typing import Any

from bus.ctx import Ctx
from bus.db import Connection
from bus.tenancy import (
    invite_redemption,
    invites,
    owner_participation,
)
from bus.tenancy.invite_redemption import Acceptor
from bus.tenancy.owners import Owner
from bus.tenancy.projects import Project
from tests.factories import Agent


@dataclass(frozen=True)
class Team:
    """A project of ada with bob as member; both have an agent `claude-1` there."""

    conn: Connection
    ada: Owner
    bob: Owner
    project: Project
    adas: Agent
    bobs: Agent

    def person(self, owner: Owner) -> Ctx:
        return owner_participation.get_or_create_owner_context(self.conn, owner.id, self.project.id)


def acceptor(owner: Owner) -> Acceptor:
    """Return an owner as the person who accepts an invite."""
    return Acceptor(owner.handle, frozenset({owner.email}))


def invite_person(team: Team, role: str = "member", *, by: Owner | None = None, **terms: Any) -> str:
    """Create an invite for a person; return its code."""
    giver = by or team.ada
    invite = invites.create_for_person(
        team.conn, team.project.id, role, acting_owner_id=giver.id, actor=giver.handle, **terms
    )
    return invite.code


def accept(team: Team, code: str, owner: Owner) -> int:
    """Accept an invite as an owner; return the project."""
    return invite_redemption.accept_as_person(team.conn, code, owner.id, acceptor(owner))
