"""What a member and its agents hold ends with the role: calls that wait, stored results, clients, and open consents."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from bus.coordination import long_poll, posts, sequences, subscriptions
from bus.db import Connection
from bus.errors import NotAuthenticated, OwnerSuspended
from bus.rules.token_format import fingerprint
from bus.tenancy import client_consent, client_grants, memberships, owners
from bus.tenancy.client_grants import ClientTokens
from bus.tenancy.owners import Owner
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import assert_refused, database_checksum
from tests.bus.tenancy.test_client_grants import REQUEST, find_caller, refresh
from tests.factories import Agent

_DEVICE_CODE = "d" * 43
_DEVICE_REQUEST = replace(REQUEST, redirect_uri=None, code_challenge=None, device_sha256=fingerprint(_DEVICE_CODE))


@dataclass(frozen=True)
class World:
    """A project of ada, and bob as lead in it with an agent."""

    conn: Connection
    project: Project
    root: Agent
    bob: Owner
    agent: Agent

    def consent(self, request: client_consent.ConsentRequest = REQUEST) -> str:
        """Let bob consent that a client acts as the agent; return the code."""
        participation_id = self.agent.ctx.participation_id
        return client_consent.connect_participant(
            self.conn, self.bob.id, participation_id, request, ttl=None, actor="bob"
        )

    def exchange(self, code: str) -> ClientTokens | None:
        grant = client_grants.lock_by_code(self.conn, code)
        return None if grant is None else client_grants.issue_tokens(self.conn, grant)


@pytest.fixture
def world(conn: Connection) -> World:
    project = factories.make_project(conn, "apollo", factories.make_owner(conn, "ada"))
    bob = factories.make_member(conn, project, "lead", "bob")
    agent = factories.make_member_agent(conn, project, bob, "worker")
    return World(conn, project, factories.make_agent(conn, project, "root"), bob, agent)


def _set_role(world: World, role: str) -> None:
    memberships.set_role(
        world.conn, world.project.id, world.bob.id, role, acting_owner_id=world.project.owner_id, actor="ada"
    )


def _remove(world: World, acting_owner_id: int) -> None:
    memberships.remove(world.conn, world.project.id, world.bob.id, acting_owner_id=acting_owner_id, actor="x")


def _suspend(world: World, owner_id: int) -> None:
    owners.suspend(world.conn, owner_id, reason="abuse", actor="operator")


_ENDS: dict[str, Callable[[World], object]] = {
    "left": lambda w: _remove(w, w.bob.id),
    "removed": lambda w: _remove(w, w.project.owner_id),
    "made viewer": lambda w: _set_role(w, "viewer"),
}
_SUSPENSIONS: dict[str, Callable[[World], object]] = {
    "suspended": lambda w: _suspend(w, w.bob.id),
    "owner suspended": lambda w: _suspend(w, w.project.owner_id),
}
_LOSSES: dict[str, tuple[Callable[[World], object], type[Exception]]] = {
    **{name: (end, NotAuthenticated) for name, end in _ENDS.items()},
    **{name: (suspend, OwnerSuspended) for name, suspend in _SUSPENSIONS.items()},
}
with_each_loss = pytest.mark.parametrize(("lose", "error"), _LOSSES.values(), ids=list(_LOSSES))
with_each_end = pytest.mark.parametrize("end", _ENDS.values(), ids=list(_ENDS))


@with_each_loss
def test_a_wait_and_a_subscription_of_a_members_agent_end(world: World, lose: Any, error: type[Exception]) -> None:
    request = long_poll.begin_wait(world.conn, world.agent.ctx, "inbox")
    state = subscriptions.begin_subscription(world.conn, world.agent.ctx)
    assert state is not None
    posts.create(world.conn, world.root.ctx, "hello", to_actor="bob/worker")
    lose(world)
    before = database_checksum(world.conn)
    assert long_poll.find_ready(world.conn, [request]) == [request]
    with pytest.raises(error), world.conn.raw.transaction():
        long_poll.poll(world.conn, request)
    assert subscriptions.fetch_changes(world.conn, [state]) == [None]
    assert database_checksum(world.conn) == before


@with_each_loss
def test_a_stored_result_of_a_members_agent_is_not_given_again(world: World, lose: Any, error: type[Exception]) -> None:
    sequences.claim(world.conn, world.agent.ctx, "s", idempotency_key="k")
    lose(world)
    with pytest.raises(error), world.conn.raw.transaction():
        sequences.claim(world.conn, world.agent.ctx, "s", idempotency_key="k")


@with_each_loss
def test_a_client_of_a_member_is_refused(world: World, lose: Any, error: type[Exception]) -> None:
    issued = world.exchange(world.consent())
    assert issued is not None
    ctx = find_caller(world.conn, issued)
    sequences.claim(world.conn, ctx, "s")
    lose(world)
    with pytest.raises(error), world.conn.raw.transaction():
        sequences.claim(world.conn, ctx, "s")
    # A suspended owner grants nothing by a refresh: what it gives is refused as the first was.
    renewed = refresh(world.conn, issued.refresh_token)
    if error is NotAuthenticated:
        assert renewed is None
    else:
        assert renewed is not None
        renewed_ctx = find_caller(world.conn, renewed)
        with pytest.raises(OwnerSuspended), world.conn.raw.transaction():
            sequences.claim(world.conn, renewed_ctx, "s")


@with_each_end
@pytest.mark.parametrize("is_device", [False, True], ids=["code", "device code"])
def test_what_a_member_consented_to_is_not_exchanged_after_the_role_ended(
    world: World, end: Callable[[World], object], is_device: bool
) -> None:
    code = world.consent(_DEVICE_REQUEST if is_device else REQUEST)
    end(world)
    assert world.exchange(_DEVICE_CODE if is_device else code) is None
    # The role that is given again does not revive it.
    if memberships.find_role(world.conn, world.bob.id, world.project.id) is None:
        factories.join_as(world.conn, world.project, world.bob, "lead")
    else:
        _set_role(world, "lead")
    assert world.exchange(_DEVICE_CODE if is_device else code) is None


@with_each_end
@pytest.mark.parametrize("is_device", [False, True], ids=["code", "device code"])
def test_who_has_no_role_any_more_consents_to_nothing(
    world: World, end: Callable[[World], object], is_device: bool
) -> None:
    request = _DEVICE_REQUEST if is_device else REQUEST
    end(world)
    is_viewer = memberships.find_role(world.conn, world.bob.id, world.project.id) is not None
    before = database_checksum(world.conn)
    with assert_refused(world.conn, "not_found"):
        world.consent(request)
    with assert_refused(world.conn, "forbidden" if is_viewer else "not_found"):
        client_consent.connect_new_participant(
            world.conn, world.bob.id, world.project.id, "late", None, request, ttl=None, actor="bob"
        )
    assert database_checksum(world.conn) == before


@pytest.mark.parametrize("suspend", _SUSPENSIONS.values(), ids=list(_SUSPENSIONS))
@pytest.mark.parametrize("request_", [REQUEST, _DEVICE_REQUEST], ids=["browser", "device"])
def test_a_member_consents_to_nothing_while_either_owner_is_suspended(
    world: World, suspend: Callable[[World], object], request_: client_consent.ConsentRequest
) -> None:
    suspend(world)
    before = database_checksum(world.conn)
    with pytest.raises(OwnerSuspended), world.conn.raw.transaction():
        world.consent(request_)
    with pytest.raises(OwnerSuspended), world.conn.raw.transaction():
        client_consent.connect_new_participant(
            world.conn, world.bob.id, world.project.id, "late", None, request_, ttl=None, actor="bob"
        )
    assert database_checksum(world.conn) == before
