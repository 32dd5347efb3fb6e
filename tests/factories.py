"""Factories for owners, projects and agents, which call the engine as every process does."""

import itertools
from dataclasses import dataclass

from bus.ctx import Ctx
from bus.db import Connection
from bus.rules.token_format import fingerprint
from bus.tenancy import invite_redemption, invites, owners, participations, projects, tokens

_name_counter = itertools.count(1)


@dataclass(frozen=True)
class Agent:
    """A participation with a live token, as a caller of the engine and of the gateway."""

    ctx: Ctx
    token: str
    actor: str
    label: str
    project: str
    handle: str


def make_owner(conn: Connection, handle: str | None = None) -> owners.Owner:
    handle = handle or f"owner-{next(_name_counter)}"
    return owners.add(conn, f"{handle}@example.org", handle=handle, actor="cli")


def make_project(conn: Connection, name: str | None = None, owner: owners.Owner | None = None) -> projects.Project:
    owner = owner or make_owner(conn)
    return projects.add(conn, owner.id, name or f"project-{next(_name_counter)}", actor="cli")


def make_agent(
    conn: Connection,
    project: projects.Project | None = None,
    label: str | None = None,
    *,
    lane: str | None = None,
    is_admin: bool = False,
    kind: str = "agent",
) -> Agent:
    project = project or make_project(conn)
    label = label or f"agent-{next(_name_counter)}"
    issued = participations.join(conn, project.id, label, lane=lane, is_admin=is_admin, kind=kind, actor="cli")
    return authenticate_agent(conn, issued)


def authenticate_agent(conn: Connection, issued: participations.IssuedParticipation) -> Agent:
    ctx = tokens.find_caller(conn, fingerprint(issued.token))
    assert ctx is not None
    handle = issued.actor.partition("/")[0]
    return Agent(ctx, issued.token, issued.actor, issued.participant, issued.project, handle)


def make_member(
    conn: Connection, project: projects.Project, role: str = "member", handle: str | None = None
) -> owners.Owner:
    """Create an owner and let it accept an invite to a project."""
    member = make_owner(conn, handle)
    join_as(conn, project, member, role)
    return member


def join_as(conn: Connection, project: projects.Project, member: owners.Owner, role: str) -> None:
    """Let an owner accept an invite to a project."""
    invite = invites.create_for_person(conn, project.id, role, acting_owner_id=project.owner_id, actor=project.owner)
    acceptor = invite_redemption.Acceptor(member.handle, frozenset({member.email}))
    invite_redemption.accept_as_person(conn, invite.code, member.id, acceptor)


def make_member_agent(
    conn: Connection, project: projects.Project, member: owners.Owner, label: str, *, lane: str | None = None
) -> Agent:
    """Add an agent of a member to a project."""
    issued = participations.join(conn, project.id, label, lane=lane, member_id=member.id, actor=member.handle)
    return authenticate_agent(conn, issued)
