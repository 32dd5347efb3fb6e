"""Presence: a registration is an event, a sighting is not, and last_seen never goes back."""

from datetime import timedelta

import pytest

from bus.coordination import posts, presence
from bus.db import Connection
from bus.tenancy import participations
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import database_checksum, list_event_types, list_events
from tests.factories import Agent


def _age(conn: Connection, agent: Agent, seconds: float) -> None:
    conn.execute(
        "UPDATE presence SET last_seen = clock_timestamp() - make_interval(secs => %s) WHERE participation_id = %s",
        (seconds, agent.ctx.participation_id),
    )


def _active(conn: Connection, agent: Agent, **more: object) -> list[str]:
    return [one.actor for one in presence.list_active(conn, agent.ctx, **more).active]  # type: ignore[arg-type]


def test_a_registration_sets_lane_and_status(conn: Connection, ada: Agent, bob: Agent) -> None:
    registered = presence.register(conn, ada.ctx, "core", status="fixing leases")
    assert (registered.actor, registered.lane, registered.status) == (ada.actor, "core", "fixing leases")
    assert list_events(conn, ada.ctx.project_id) == [(1, "register", {"lane": "core", "status": "fixing leases"})]
    (seen,) = presence.list_active(conn, bob.ctx).active
    assert (seen.actor, seen.lane, seen.status) == (ada.actor, "core", "fixing leases")
    assert seen.last_seen == registered.registered_at


def test_an_identical_registration_adds_no_event_and_refreshes(conn: Connection, ada: Agent) -> None:
    first = presence.register(conn, ada.ctx, "core", status="x")
    _age(conn, ada, 1000)
    assert _active(conn, ada) == []
    again = presence.register(conn, ada.ctx, "core", status="x")
    assert again == first
    assert list_event_types(conn, ada.ctx.project_id) == ["register"]
    assert _active(conn, ada) == [ada.actor]
    changed = presence.register(conn, ada.ctx, "core", status="y")
    assert changed.registered_at >= first.registered_at
    assert presence.register(conn, ada.ctx, "core").status == ""
    assert list_event_types(conn, ada.ctx.project_id) == ["register"] * 3


def test_the_first_registration_of_the_granted_lane_is_an_event(conn: Connection, project: Project) -> None:
    agent = factories.make_agent(conn, project, lane="core")
    presence.register(conn, agent.ctx, "core")
    assert list_event_types(conn, project.id) == ["register"]


def test_a_sighting_advances_last_seen_and_keeps_the_lane(conn: Connection, ada: Agent, bob: Agent) -> None:
    registered = presence.register(conn, ada.ctx, "core", status="x")
    me = ada.ctx.participation_id
    presence.record_seen(conn, {me: 500.0})
    (seen,) = presence.list_active(conn, bob.ctx).active
    assert (seen.last_seen, seen.lane, seen.status) == (registered.registered_at, "core", "x")
    presence.record_seen(conn, {me: 0.0})
    (seen,) = presence.list_active(conn, bob.ctx).active
    assert seen.last_seen > registered.registered_at
    assert (seen.lane, seen.status) == ("core", "x")
    assert list_event_types(conn, ada.ctx.project_id) == ["register"]


def test_a_sighting_is_recorded_by_its_age(conn: Connection, ada: Agent, bob: Agent) -> None:
    presence.record_seen(conn, {ada.ctx.participation_id: 100.0, bob.ctx.participation_id: 5.0})
    seen = {one.actor: one for one in presence.list_active(conn, ada.ctx).active}
    apart = seen[bob.actor].last_seen - seen[ada.actor].last_seen
    assert timedelta(seconds=94) < apart < timedelta(seconds=96)
    assert (seen[ada.actor].lane, seen[ada.actor].status) == (None, "")
    assert _active(conn, ada, within_seconds=60) == [bob.actor]


def test_sightings_of_removed_participants_are_ignored(conn: Connection, ada: Agent, project: Project) -> None:
    participations.remove(conn, project.id, "ada", actor="cli")
    before = database_checksum(conn)
    presence.record_seen(conn, {})
    presence.record_seen(conn, {ada.ctx.participation_id: 0.0, 2**50: 0.0})
    assert database_checksum(conn) == before


@pytest.mark.parametrize(
    ("within", "seconds_ago", "active"),
    [
        (None, 895, True),
        (None, 901, False),
        (60, 55, True),
        (60, 61, False),
        # In a shorter window the lag of up to two seconds would show.
        (1, 55, True),
        (1, 61, False),
        (86_400, 86_300, True),
        (86_400, 86_500, False),
    ],
)
def test_the_window_decides_who_is_active(
    conn: Connection, ada: Agent, within: int | None, seconds_ago: int, active: bool
) -> None:
    presence.register(conn, ada.ctx, "core")
    _age(conn, ada, seconds_ago)
    assert _active(conn, ada, within_seconds=within) == ([ada.actor] if active else [])


def test_the_default_window_is_that_of_the_project(conn: Connection, ada: Agent, project: Project) -> None:
    presence.register(conn, ada.ctx, "core")
    _age(conn, ada, 100)
    conn.execute("UPDATE project SET presence_window_seconds = 90 WHERE id = %s", (project.id,))
    assert _active(conn, ada) == []
    assert _active(conn, ada, within_seconds=120) == [ada.actor]


def test_participants_are_filtered_by_registered_else_granted_lane(conn: Connection, project: Project) -> None:
    granted = factories.make_agent(conn, project, "granted", lane="core")
    moved = factories.make_agent(conn, project, "moved", lane="core")
    none = factories.make_agent(conn, project, "none")
    presence.register(conn, moved.ctx, "docs")
    presence.record_seen(conn, {granted.ctx.participation_id: 0.0, none.ctx.participation_id: 0.0})
    assert _active(conn, none, lane="core") == [granted.actor]
    assert _active(conn, none, lane="docs") == [moved.actor]
    assert _active(conn, none) == [granted.actor, moved.actor, none.actor]
    assert _active(conn, none, lane="nowhere") == []


def test_a_removed_participant_is_not_active(conn: Connection, ada: Agent, bob: Agent, project: Project) -> None:
    presence.register(conn, bob.ctx, "core")
    participations.remove(conn, project.id, "bob", actor="cli")
    assert _active(conn, ada) == []


def test_active_participants_are_paged_by_name(conn: Connection, ada: Agent, project: Project) -> None:
    agents = [factories.make_agent(conn, project, f"a{number}") for number in range(7)]
    presence.record_seen(conn, {agent.ctx.participation_id: 0.0 for agent in agents})
    seen: list[str] = []
    before = None
    while True:
        page = presence.list_active(conn, ada.ctx, before=before, limit=3)
        assert len(page.active) <= 3
        seen += [one.actor for one in page.active]
        before = page.next_before
        if before is None:
            break
    assert seen == [agent.actor for agent in agents]


def test_presence_results_have_the_unread_count(conn: Connection, ada: Agent, bob: Agent) -> None:
    posts.create(conn, ada.ctx, "hello", to_actor="bob")
    assert presence.list_active(conn, bob.ctx).unread == 1
    assert presence.register(conn, bob.ctx, "core").unread == 1
