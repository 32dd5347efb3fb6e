"""What a participation or an owner has handed out ends with the rights of its giver: everything but invites.

Invites are in tests/bus/tenancy/test_invite_authority.py.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from bus.auth import login_links, sessions
from bus.coordination import escalation, leases, long_poll, posts, sequences, subscriptions, tasks
from bus.db import Connection
from bus.errors import NotAuthenticated, OwnerSuspended
from bus.notifications import outbox
from bus.operations import project_purge
from bus.tenancy import owners, participations, tokens
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import assert_refused, database_checksum
from tests.factories import Agent

_LOSSES: dict[str, tuple[Callable[[Connection, Project, Agent], object], type[Exception]]] = {
    "removed": (
        lambda conn, project, agent: participations.remove(conn, project.id, agent.label, actor="owner"),
        NotAuthenticated,
    ),
    "revoked": (
        lambda conn, project, agent: tokens.revoke_all(conn, project.id, agent.label, actor="owner"),
        NotAuthenticated,
    ),
    "rotated": (
        lambda conn, project, agent: tokens.rotate(conn, project.id, agent.label, actor="owner"),
        NotAuthenticated,
    ),
    "suspended": (
        lambda conn, project, agent: owners.suspend(conn, project.owner_id, reason="abuse", actor="operator"),
        OwnerSuspended,
    ),
}
with_each_loss = pytest.mark.parametrize(("lose", "error"), _LOSSES.values(), ids=list(_LOSSES))


@with_each_loss
@pytest.mark.parametrize("kind", ["inbox", "acks", "task", "take", "lease"])
def test_a_wait_returns_nothing_after_the_loss(
    conn: Connection, project: Project, root: Agent, ada: Agent, lose: Any, error: type[Exception], kind: str
) -> None:
    surface = "src/a.py" if kind == "lease" else None
    if kind == "lease":
        leases.acquire(conn, root.ctx, "src/a.py", ttl=timedelta(hours=1))
    request = long_poll.begin_wait(
        conn, ada.ctx, "task" if kind == "take" else kind, surface=surface, take=kind == "take"
    )
    # What it waits for becomes ready.
    mine = posts.create(conn, ada.ctx, "hello", to_actor=root.label)
    posts.create(conn, root.ctx, "hello", to_actor=ada.label)
    posts.ack(conn, root.ctx, [mine.post_id])
    tasks.create(conn, root.ctx, "work")
    if kind == "lease":
        leases.release(conn, root.ctx, "src/a.py")
    lose(conn, project, ada)
    before = database_checksum(conn)
    # It is found to be ready at once, so that it ends, and its poll is refused.
    assert long_poll.find_ready(conn, [request]) == [request]
    with pytest.raises(error), conn.raw.transaction():
        long_poll.poll(conn, request)
    assert database_checksum(conn) == before


@with_each_loss
def test_a_subscription_ends_with_the_loss(
    conn: Connection, project: Project, ada: Agent, lose: Any, error: type[Exception]
) -> None:
    state = subscriptions.begin_subscription(conn, ada.ctx)
    assert state is not None
    lose(conn, project, ada)
    assert subscriptions.fetch_changes(conn, [state]) == [None]
    assert subscriptions.begin_subscription(conn, ada.ctx) is None


@with_each_loss
@pytest.mark.parametrize("verb", ["claim", "post", "task_create"])
def test_an_idempotency_key_returns_no_stored_result_after_the_loss(
    conn: Connection, project: Project, ada: Agent, root: Agent, lose: Any, error: type[Exception], verb: str
) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "claim": lambda: sequences.claim(conn, ada.ctx, "s", idempotency_key="k"),
        "post": lambda: posts.create(conn, ada.ctx, "x", to_actor=root.label, idempotency_key="k"),
        "task_create": lambda: tasks.create(conn, ada.ctx, "x", idempotency_key="k"),
    }
    assert calls[verb]() == calls[verb]()
    lose(conn, project, ada)
    with pytest.raises(error), conn.raw.transaction():
        calls[verb]()


def test_a_rotated_token_finds_the_results_of_its_participation(conn: Connection, project: Project, ada: Agent) -> None:
    """The key belongs to the participation, which is the same; a retry after a rotation has one effect."""
    first = sequences.claim(conn, ada.ctx, "s", idempotency_key="k")
    rotated = factories.authenticate_agent(conn, tokens.rotate(conn, project.id, ada.label, actor="owner"))
    assert sequences.claim(conn, rotated.ctx, "s", idempotency_key="k") == first


def test_a_suspended_owners_webhooks_and_address_get_no_escalation(
    conn: Connection, project: Project, root: Agent, ada: Agent
) -> None:
    outbox.add_webhook(conn, project.owner_id, "https://hooks.example.org/x", project_id=project.id, actor="owner")
    posts.create(conn, root.ctx, "urgent", to_actor=ada.label, ack_within_seconds=60)
    owners.suspend(conn, project.owner_id, reason="abuse", actor="operator")
    for _ in escalation.ESCALATION_STEPS:
        conn.execute("UPDATE post SET escalate_at = clock_timestamp() WHERE escalate_at IS NOT NULL")
        escalation.escalate_overdue_posts(conn, project.id)
    assert outbox.list_log_entries(conn, project.owner_id) == []


def test_the_messages_of_a_deleted_project_are_given_up(conn: Connection, project: Project) -> None:
    outbox.add_webhook(conn, project.owner_id, "https://hooks.example.org/x", project_id=project.id, actor="owner")
    outbox.add_webhook(conn, project.owner_id, "https://hooks.example.org/x", actor="owner")
    outbox.enqueue(conn, "test", owner_id=project.owner_id, project_id=project.id)
    outbox.enqueue(conn, "test", owner_id=project.owner_id)
    while not project_purge.begin_purge(conn, project.id, actor="owner"):
        pass
    entries = outbox.list_log_entries(conn, project.owner_id)
    assert [(entry.state, entry.last_result) for entry in entries] == [
        ("waiting", None),
        ("given up", "the project was deleted"),
    ]


def test_signing_out_everywhere_voids_the_login_links(conn: Connection) -> None:
    owner, other = factories.make_owner(conn), factories.make_owner(conn)
    link = login_links.create_login_link(conn, owner, actor="cli")
    link_of_other = login_links.create_login_link(conn, other, actor="cli")
    sessions.end_all_sessions(conn, owner.id, actor=owner.handle)
    with assert_refused(conn, "not_found"):
        login_links.consume_login_link(conn, link)
    assert login_links.consume_login_link(conn, link_of_other) == other.id


def test_a_suspended_owner_may_sign_in_with_a_link_to_top_up(conn: Connection) -> None:
    owner = factories.make_owner(conn)
    link = login_links.create_login_link(conn, owner, actor="cli")
    owners.suspend(conn, owner.id, reason="abuse", actor="operator")
    assert login_links.consume_login_link(conn, link) == owner.id
