"""Every administrative act writes its row of the audit log: action, actor and subject."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import bus
from bus.auth import identities, login_links, sessions
from bus.auth.identities import IdentityClaims
from bus.billing import credits, metering, prices
from bus.coordination import expiry, leases
from bus.db import Connection
from bus.imports import original_tenancy
from bus.imports.findings import Findings
from bus.imports.original_rows import ProjectRow
from bus.notifications import outbox
from bus.operations import jobs, project_purge
from bus.tenancy import (
    client_consent,
    client_grants,
    invite_queries,
    invite_redemption,
    invites,
    memberships,
    owners,
    participants,
    participations,
    projects,
    ref_patterns,
    tokens,
)
from bus.tenancy.owners import Owner
from bus.tenancy.projects import Project
from tests.factories import Agent, make_agent, make_member, make_owner, make_project

_ISSUER = "https://id.example.org"
_HOOK = "https://hooks.example.org/llm-bus"


@dataclass(frozen=True)
class World:
    """An owner with a project, a project-admin and an agent, and an invite to the project."""

    conn: Connection
    owner: Owner
    project: Project
    admin: Agent
    agent: Agent
    invite: invites.CreatedInvite

    @property
    def agent_id(self) -> int:
        return self.agent.ctx.participant_id


@dataclass(frozen=True)
class Act:
    """An act and its row of the audit log; actor and subject are templates with names of the world.

    Attributes:
        prepare: changes the world before the act.
    """

    action: str
    actor: str
    subject: str
    call: Callable[[World], Any]
    prepare: Callable[[World], Any] = lambda world: None


def _join_as_person(world: World) -> None:
    make_member(world.conn, world.project, "member", "bob")


def _bob(world: World) -> Owner:
    return owners.get(world.conn, "bob")


def _link_identity(world: World) -> int:
    identities.link_identity(world.conn, world.owner, IdentityClaims(_ISSUER, "1", "linked@example.org"))
    return identities.list_identities(world.conn, world.owner.id)[0].id


def _unlink_identity(world: World) -> None:
    # An owner keeps the last one.
    identities.link_identity(world.conn, world.owner, IdentityClaims(_ISSUER, "3", None))
    identities.unlink_identity(world.conn, world.owner, identities.list_identities(world.conn, world.owner.id)[0].id)


def _open_session(world: World) -> str:
    return sessions.open_session(world.conn, world.owner.id, method="link", ttl=timedelta(hours=1))


def _end_session(world: World) -> bool:
    (session,) = sessions.list_sessions(world.conn, world.owner.id, idle_timeout=timedelta(hours=1))
    return sessions.end_session(world.conn, world.owner.id, session.id)


def _sign_up(world: World) -> Owner:
    claims = IdentityClaims(_ISSUER, "2", "newcomer@example.org")
    return identities.finish_sign_up(world.conn, identities.begin_sign_up(world.conn, claims), "newcomer")


def _get_invite_id(world: World) -> int:
    return invite_queries.list_invites(world.conn, world.project.id)[0].id


def _expire_invite(world: World) -> None:
    world.conn.execute("UPDATE invite SET expires_at = clock_timestamp() - interval '1 second'")


def _revoke_one_token(world: World) -> bool:
    (token,) = tokens.list_tokens(world.conn, world.agent.ctx.participation_id)
    return tokens.revoke(world.conn, world.project.id, token.id, actor="web")


def _connect_client(world: World) -> str:
    request = client_consent.ConsentRequest(
        "https://app.example/client", "App", "http://127.0.0.1/", "https://bus/mcp", "c"
    )
    return client_consent.connect_participant(
        world.conn, world.owner.id, world.agent.ctx.participation_id, request, ttl=None, actor="web"
    )


def _disconnect_client(world: World) -> bool:
    (grant_id,) = world.conn.fetch_one("SELECT max(id) FROM client_grant")
    return client_grants.disconnect(world.conn, world.owner.id, grant_id, actor="web")


def _remove_webhook(world: World) -> None:
    (webhook,) = outbox.list_webhooks(world.conn, world.owner.id)
    outbox.remove_webhook(world.conn, world.owner.id, webhook.id, actor="web")


def _exhaust_credits(world: World) -> None:
    metering.set_metering_enabled(world.conn, True)
    credits.get_or_create_account(world.conn, world.owner.id)
    world.conn.execute("UPDATE credit_account SET delinquent_at = clock_timestamp() - interval '9 hours'")


def _release_by_force(world: World) -> bool:
    lease = leases.acquire(world.conn, world.agent.ctx, "src/a.py")
    return leases.force_release(world.conn, world.admin.ctx, lease.fence)


def _change_settings(world: World) -> bool:
    settings = replace(projects.get_settings(world.conn, world.project.id), presence_window_seconds=61)
    return projects.set_settings(world.conn, world.project.id, settings, actor="web")


_JOB = jobs.JobDefinition("expire_leases", "ends leases", 10.0, 1.0)


def _import_project(world: World) -> int:
    imported = original_tenancy.ImportedOwner(world.owner.id, world.owner.handle)
    row = ProjectRow(7, 1, "apollo", "apollo", 900, datetime(2026, 1, 1, tzinfo=UTC))
    return original_tenancy.create_project(world.conn, imported, row, Findings())


_ACTS: dict[str, Act] = {
    # Owners: command line, operator console, sign-in.
    "add an owner": Act(
        "owner.add", "cli", "new", lambda w: owners.add(w.conn, "new@example.org", handle="new", actor="cli")
    ),
    "sign up": Act("owner.add", "newcomer", "newcomer", _sign_up),
    "suspend an owner": Act(
        "owner.suspend", "op", "{owner}", lambda w: owners.suspend(w.conn, w.owner.id, reason="abuse", actor="op")
    ),
    "suspend without credits": Act(
        "owner.suspend",
        "clock",
        "{owner}",
        lambda w: credits.suspend_delinquent_owner(w.conn, w.owner.id, 1),
        _exhaust_credits,
    ),
    "lift a suspension": Act(
        "owner.lift",
        "op",
        "{owner}",
        lambda w: owners.lift_suspension(w.conn, w.owner.id, actor="op"),
        lambda w: owners.suspend(w.conn, w.owner.id, reason="abuse", actor="op"),
    ),
    "make an operator": Act(
        "owner.operator", "cli", "{owner}", lambda w: owners.set_operator(w.conn, w.owner.id, True, actor="cli")
    ),
    "change the e-mail address": Act(
        "owner.email",
        "{owner}",
        "{owner}",
        lambda w: identities.set_email_from_identity(
            w.conn, w.owner, identities.list_identities(w.conn, w.owner.id)[0].id
        ),
        _link_identity,
    ),
    "change the handle": Act(
        "owner.rename",
        "{owner}",
        "renamed",
        lambda w: owners.rename(w.conn, w.owner.id, "renamed", actor=w.owner.handle),
    ),
    "link an identity": Act("identity.link", "{owner}", _ISSUER, _link_identity),
    "unlink an identity": Act("identity.unlink", "{owner}", _ISSUER, _unlink_identity, _link_identity),
    "create a sign-in link": Act(
        "login_link.create", "cli", "{owner}", lambda w: login_links.create_login_link(w.conn, w.owner, actor="cli")
    ),
    "sign in": Act("session.open", "{owner}", "{owner}", _open_session),
    "sign out": Act("session.end", "{owner}", "{owner}", _end_session, _open_session),
    "end all sessions": Act(
        "session.end_all",
        "op",
        "{owner}",
        lambda w: sessions.end_all_sessions(w.conn, w.owner.id, actor="op"),
        _open_session,
    ),
    # Projects: web and command line.
    "add a project": Act(
        "project.add", "web", "gemini", lambda w: projects.add(w.conn, w.owner.id, "gemini", actor="web")
    ),
    "import a project": Act("project.import", "import", "apollo", _import_project),
    "archive a project": Act(
        "project.archive", "web", "{project}", lambda w: projects.archive(w.conn, w.project.id, actor="web")
    ),
    "reopen a project": Act(
        "project.reopen",
        "web",
        "{project}",
        lambda w: projects.reopen(w.conn, w.project.id, actor="web"),
        lambda w: projects.archive(w.conn, w.project.id, actor="web"),
    ),
    "rename a project": Act(
        "project.rename", "web", "gemini", lambda w: projects.rename(w.conn, w.project.id, "gemini", actor="web")
    ),
    "add a pattern of references": Act(
        "ref_pattern.add",
        "web",
        "PR-(.)",
        lambda w: ref_patterns.add_pattern(w.conn, w.project.id, "PR-(.)", "https://example.org/$1", actor="web"),
    ),
    "remove a pattern of references": Act(
        "ref_pattern.remove",
        "web",
        "PR-(.)",
        lambda w: ref_patterns.remove_pattern(w.conn, w.project.id, "PR-(.)", actor="web"),
        lambda w: ref_patterns.add_pattern(w.conn, w.project.id, "PR-(.)", "https://example.org/$1", actor="web"),
    ),
    "change the settings of a project": Act("project.settings", "web", "{project}", _change_settings),
    "delete a project": Act(
        "project.purge", "web", "{project}", lambda w: project_purge.begin_purge(w.conn, w.project.id, actor="web")
    ),
    # Participants and participations.
    "create a participant": Act(
        "participant.create",
        "web",
        "{owner}/eve",
        lambda w: participants.create(w.conn, w.owner.id, "eve", actor="web"),
    ),
    "rename a participant": Act(
        "participant.rename",
        "web",
        "{owner}/eve",
        lambda w: participants.rename(w.conn, w.owner.id, w.agent_id, "eve", actor="web"),
    ),
    "remove a participant": Act(
        "participant.remove",
        "web",
        "{agent}",
        lambda w: participants.remove(w.conn, w.owner.id, w.agent_id, actor="web"),
        lambda w: participations.remove(w.conn, w.project.id, w.agent.label, actor="web"),
    ),
    "add a participant to a project": Act(
        "participation.grant",
        "web",
        "{owner}/eve",
        lambda w: participations.join(w.conn, w.project.id, "eve", actor="web"),
    ),
    "admin_provision": Act(
        "participation.grant", "{admin}", "{owner}/eve", lambda w: participations.provision(w.conn, w.admin.ctx, "eve")
    ),
    "redeem an invite": Act(
        "participation.grant",
        "invite {invite}",
        "{owner}/eve",
        lambda w: invite_redemption.redeem(w.conn, w.invite.code, name="eve"),
    ),
    "remove a participant from a project": Act(
        "participation.remove",
        "web",
        "{agent}",
        lambda w: participations.remove(w.conn, w.project.id, w.agent.label, actor="web"),
    ),
    "make a project-admin": Act(
        "participation.admin",
        "web",
        "{agent}",
        lambda w: participations.set_admin(w.conn, w.project.id, w.agent.label, True, actor="web"),
    ),
    "set the lane of a participant": Act(
        "participation.lane",
        "web",
        "{agent}",
        lambda w: participations.set_lane(w.conn, w.project.id, w.agent.label, "core", actor="web"),
    ),
    # People.
    "accept an invite for a person": Act("membership.add", "bob", "bob", _join_as_person),
    "change the role of a person": Act(
        "membership.role",
        "web",
        "bob",
        lambda w: memberships.set_role(
            w.conn, w.project.id, _bob(w).id, "lead", acting_owner_id=w.owner.id, actor="web"
        ),
        lambda w: _join_as_person(w),
    ),
    "remove a person": Act(
        "membership.remove",
        "web",
        "bob",
        lambda w: memberships.remove(w.conn, w.project.id, _bob(w).id, acting_owner_id=w.owner.id, actor="web"),
        lambda w: _join_as_person(w),
    ),
    "invite a person": Act(
        "invite.create",
        "web",
        "{newest_invite}",
        lambda w: invites.create_for_person(w.conn, w.project.id, "member", acting_owner_id=w.owner.id, actor="web"),
    ),
    # Tokens and invites.
    "add a token": Act(
        "token.add", "web", "{agent}", lambda w: tokens.add(w.conn, w.project.id, w.agent.label, actor="web")
    ),
    "rotate a token": Act(
        "token.rotate", "web", "{agent}", lambda w: tokens.rotate(w.conn, w.project.id, w.agent.label, actor="web")
    ),
    "admin_rotate": Act(
        "token.rotate", "{admin}", "{agent}", lambda w: tokens.rotate_as_admin(w.conn, w.admin.ctx, w.agent.label)
    ),
    "revoke all tokens": Act(
        "token.revoke", "web", "{agent}", lambda w: tokens.revoke_all(w.conn, w.project.id, w.agent.label, actor="web")
    ),
    "revoke one token": Act("token.revoke", "web", "{agent}", _revoke_one_token),
    "admin_revoke": Act(
        "token.revoke", "{admin}", "{agent}", lambda w: tokens.revoke_as_admin(w.conn, w.admin.ctx, w.agent.label)
    ),
    "connect a client": Act("client.connect", "web", "{agent}", _connect_client),
    "disconnect a client": Act("client.disconnect", "web", "{agent}", _disconnect_client, _connect_client),
    "create an invite": Act(
        "invite.create", "web", "{newest_invite}", lambda w: invites.create_for_owner(w.conn, w.project.id, actor="web")
    ),
    "create_invite": Act("invite.create", "{admin}", "{newest_invite}", lambda w: invites.create(w.conn, w.admin.ctx)),
    "revoke an invite": Act(
        "invite.revoke",
        "web",
        "{invite}",
        lambda w: invites.revoke(w.conn, w.project.id, _get_invite_id(w), actor="web"),
    ),
    "expire an invite": Act(
        "invite.expire", "clock", "{invite}", lambda w: expiry.expire_invites(w.conn), _expire_invite
    ),
    # Leases, webhooks, credits and jobs.
    "release a lease by force": Act("lease.release", "{admin}", "src/a.py", _release_by_force),
    "add a webhook": Act(
        "webhook.add", "web", _HOOK, lambda w: outbox.add_webhook(w.conn, w.owner.id, _HOOK, actor="web")
    ),
    "remove a webhook": Act(
        "webhook.remove",
        "web",
        _HOOK,
        _remove_webhook,
        lambda w: outbox.add_webhook(w.conn, w.owner.id, _HOOK, actor="web"),
    ),
    "add credits": Act(
        "credit.add", "op", "r-1", lambda w: credits.add_credits(w.conn, w.owner.id, 5, reference="r-1", actor="op")
    ),
    "change the plan": Act(
        "credit.plan", "op", "comped", lambda w: credits.set_plan(w.conn, w.owner.id, "comped", actor="op")
    ),
    "set the low balance": Act(
        "credit.low_balance", "web", "7", lambda w: credits.set_low_balance(w.conn, w.owner.id, 7, actor="web")
    ),
    "set a price": Act("credit.price", "op", "claim", lambda w: prices.set_price(w.conn, "claim", 3, actor="op")),
    "switch metering on": Act(
        "metering.on", "clock", "metering", lambda w: metering.set_metering_enabled(w.conn, True)
    ),
    "switch metering off": Act(
        "metering.off",
        "clock",
        "metering",
        lambda w: metering.set_metering_enabled(w.conn, False),
        lambda w: metering.set_metering_enabled(w.conn, True),
    ),
    "run a job": Act(
        "job.run",
        "op",
        _JOB.name,
        lambda w: jobs.request_run(w.conn, _JOB.name, owner_id=w.owner.id, actor="op"),
        lambda w: jobs.register_jobs(w.conn, [_JOB]),
    ),
}


@pytest.fixture
def world(conn: Connection) -> World:
    owner = make_owner(conn)
    project = make_project(conn, owner=owner)
    return World(
        conn,
        owner,
        project,
        admin=make_agent(conn, project, "admin", is_admin=True),
        agent=make_agent(conn, project, "agent"),
        invite=invites.create_for_owner(conn, project.id, actor="cli"),
    )


def _list_hints(conn: Connection) -> list[str]:
    return [hint for (hint,) in conn.fetch_all("SELECT hint FROM invite ORDER BY id")]


@pytest.mark.parametrize("act", _ACTS.values(), ids=_ACTS)
def test_an_act_is_audited_once_with_its_actor_and_subject(world: World, act: Act) -> None:
    names = {
        "owner": world.owner.handle,
        "project": world.project.name,
        "admin": world.admin.actor,
        "agent": world.agent.actor,
        "invite": _list_hints(world.conn)[-1],
    }
    act.prepare(world)
    (last_id,) = world.conn.fetch_one("SELECT max(id) FROM audit")
    act.call(world)
    names["newest_invite"] = _list_hints(world.conn)[-1] if "newest_invite" in act.subject else ""
    rows = world.conn.fetch_all(
        "SELECT owner_id, action, actor, subject FROM audit WHERE id > %s AND action = %s", (last_id, act.action)
    )
    # Once for each owner whom the act concerns.
    assert len({owner_id for owner_id, *_ in rows}) == len(rows)
    assert {tuple(rest) for _, *rest in rows} == {(act.action, act.actor.format(**names), act.subject.format(**names))}


def test_every_action_of_the_engine_has_an_act_above() -> None:
    nouns = {act.action.partition(".")[0] for act in _ACTS.values()}
    written: set[str] = set()
    for path in Path(bus.__file__).parent.rglob("*"):
        # The tables name columns in the same form.
        if path.suffix in (".py", ".sql") and not path.stem.endswith("tables"):
            source = path.read_text("utf-8")
            if "audit" in source or "record_act" in source:
                written.update(re.findall(r"""["']([a-z_]+\.[a-z_]+)["']""", source))
    assert {action for action in written if action.partition(".")[0] in nouns} == {act.action for act in _ACTS.values()}
