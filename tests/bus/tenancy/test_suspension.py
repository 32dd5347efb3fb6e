"""A suspended owner's acts: what costs or grants is refused, what takes away stays."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from bus.coordination import leases, posts, tasks
from bus.db import Connection, Database
from bus.errors import OwnerSuspended
from bus.notifications import outbox
from bus.operations import project_purge
from bus.tenancy import (
    client_consent,
    invites,
    memberships,
    owner_participation,
    owners,
    participants,
    participations,
    projects,
    share_links,
    suspension,
    tokens,
)
from bus.tenancy.client_consent import ConsentRequest
from bus.tenancy.invites import CreatedInvite
from bus.tenancy.owners import Owner
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import database_checksum
from tests.concurrency import run_concurrently
from tests.factories import Agent


@dataclass(frozen=True)
class World:
    conn: Connection
    project: Project
    agent: Agent
    invite: CreatedInvite
    webhook_id: int
    member: Owner

    @property
    def owner_id(self) -> int:
        return self.project.owner_id

    @property
    def owner_ctx(self) -> Any:
        return owner_participation.get_or_create_owner_context(self.conn, self.owner_id, self.project.id)


_CONSENT = ConsentRequest("https://app.example/c.json", "App", "http://127.0.0.1/", "https://b.example/mcp", "c" * 43)
_DEVICE_CONSENT = replace(_CONSENT, redirect_uri=None, code_challenge=None, device_sha256=b"d" * 32)
_REFUSED: dict[str, Callable[[World], object]] = {
    "create project": lambda w: projects.add(w.conn, w.owner_id, "more", actor="owner"),
    "reopen project": lambda w: projects.reopen(w.conn, w.project.id, actor="owner"),
    "create participant": lambda w: participants.create(w.conn, w.owner_id, "more", actor="owner"),
    "add participant": lambda w: participations.join(w.conn, w.project.id, "more", actor="owner"),
    "grant admin": lambda w: participations.set_admin(w.conn, w.project.id, w.agent.label, True, actor="owner"),
    "grant lane": lambda w: participations.set_lane(w.conn, w.project.id, w.agent.label, "core", actor="owner"),
    "add token": lambda w: tokens.add(w.conn, w.project.id, w.agent.label, actor="owner"),
    "rotate token": lambda w: tokens.rotate(w.conn, w.project.id, w.agent.label, actor="owner"),
    "create invite": lambda w: invites.create_for_owner(w.conn, w.project.id, actor="owner"),
    "add webhook": lambda w: outbox.add_webhook(w.conn, w.owner_id, "https://example.org/x", actor="owner"),
    "post": lambda w: posts.create(w.conn, w.owner_ctx, "x", to_actor=w.agent.label),
    "create task": lambda w: tasks.create(w.conn, w.owner_ctx, "x"),
    "provision": lambda w: participations.provision(w.conn, w.owner_ctx, "more"),
    "create invite as admin": lambda w: invites.create(w.conn, w.owner_ctx),
    "invite person": lambda w: invites.create_for_person(
        w.conn, w.project.id, "member", acting_owner_id=w.owner_id, actor="owner"
    ),
    "change role": lambda w: memberships.set_role(
        w.conn, w.project.id, w.member.id, "lead", acting_owner_id=w.owner_id, actor="owner"
    ),
    "connect client": lambda w: client_consent.connect_participant(
        w.conn, w.owner_id, w.agent.ctx.participation_id, _CONSENT, ttl=None, actor="owner"
    ),
    "connect client as new participant": lambda w: client_consent.connect_new_participant(
        w.conn, w.owner_id, w.project.id, "more", None, _CONSENT, ttl=None, actor="owner"
    ),
    "connect device": lambda w: client_consent.connect_participant(
        w.conn, w.owner_id, w.agent.ctx.participation_id, _DEVICE_CONSENT, ttl=None, actor="owner"
    ),
    "share board": lambda w: share_links.create(w.conn, w.project.id, ttl_hours=1, actor="owner"),
}
_ALLOWED: dict[str, Callable[[World], object]] = {
    "withdraw admin": lambda w: participations.set_admin(w.conn, w.project.id, w.agent.label, False, actor="owner"),
    "revoke tokens": lambda w: tokens.revoke_all(w.conn, w.project.id, w.agent.label, actor="owner"),
    "revoke token": lambda w: tokens.revoke(w.conn, w.project.id, w.agent.ctx.token_id or 0, actor="owner"),
    "remove participant": lambda w: participations.remove(w.conn, w.project.id, w.agent.label, actor="owner"),
    "delete participant": lambda w: participants.remove(w.conn, w.owner_id, w.agent.ctx.participant_id, actor="owner"),
    "revoke invite": lambda w: invites.revoke(w.conn, w.project.id, w.invite.id, actor="owner"),
    "remove webhook": lambda w: outbox.remove_webhook(w.conn, w.owner_id, w.webhook_id, actor="owner"),
    "archive": lambda w: projects.archive(w.conn, w.project.id, actor="owner"),
    "delete project": lambda w: project_purge.begin_purge(w.conn, w.project.id, actor="owner"),
    "remove member": lambda w: memberships.remove(
        w.conn, w.project.id, w.member.id, acting_owner_id=w.owner_id, actor="owner"
    ),
    "look": lambda w: leases.list_leases(w.conn, w.owner_ctx),
}


@pytest.fixture
def world(conn: Connection, project: Project) -> World:
    agent = factories.make_agent(conn, project, "worker")
    invite = invites.create_for_owner(conn, project.id, actor="owner")
    webhook = outbox.add_webhook(conn, project.owner_id, "https://example.org/hook", project_id=project.id, actor="o")
    owner_participation.get_or_create_owner_context(conn, project.owner_id, project.id)
    return World(conn, project, agent, invite, webhook.id, factories.make_member(conn, project))


@pytest.mark.parametrize("act", _REFUSED)
def test_what_costs_or_grants_is_refused(world: World, act: str) -> None:
    owners.suspend(world.conn, world.owner_id, reason="abuse", actor="operator")
    if act == "reopen project":
        projects.archive(world.conn, world.project.id, actor="owner")
    before = database_checksum(world.conn)
    with pytest.raises(OwnerSuspended), world.conn.raw.transaction():
        _REFUSED[act](world)
    assert database_checksum(world.conn) == before
    owners.lift_suspension(world.conn, world.owner_id, actor="operator")
    _REFUSED[act](world)


@pytest.mark.parametrize("act", _ALLOWED)
def test_what_takes_away_or_reads_stays(world: World, act: str) -> None:
    owners.suspend(world.conn, world.owner_id, reason="abuse", actor="operator")
    _ALLOWED[act](world)


def test_of_a_suspension_and_a_grant_at_once_neither_slips_through(db: Database) -> None:
    """A grant that commits after the suspension would be one that a suspended owner made."""
    for round_ in range(25):
        with db.transaction() as conn:
            project = factories.make_project(conn)

        def grant(conn: Connection) -> object:
            projects.add(conn, project.owner_id, f"more-{round_}", actor="owner")  # noqa: B023
            # Under the lock of the rule the suspension cannot have committed.
            return conn.fetch_one("SELECT suspended_at IS NULL FROM owner WHERE id = %s", (project.owner_id,))  # noqa: B023

        granted, suspended = run_concurrently(
            db,
            grant,
            lambda conn: owners.suspend(conn, project.owner_id, reason="abuse", actor="operator"),  # noqa: B023
        )
        assert suspended is True
        assert granted == (True,) or isinstance(granted, OwnerSuspended), granted
        with db.connection() as conn, pytest.raises(OwnerSuspended):
            suspension.require_active_owner(conn, project.owner_id)
