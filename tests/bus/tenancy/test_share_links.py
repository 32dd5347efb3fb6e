"""Share links: they show one board, and end with their time, their owner's rights and their project."""

from collections.abc import Callable

import pytest

from bus.db import Connection
from bus.errors import BusError, OwnerSuspended
from bus.operations import project_purge, retention
from bus.tenancy import audit, owners, projects, share_links
from bus.tenancy.projects import Project
from tests.factories import make_project


def test_a_link_shows_the_board_of_its_project_alone(conn: Connection, project: Project) -> None:
    other = make_project(conn, "other")
    link = share_links.create(conn, project.id, ttl_hours=1, actor=project.owner)
    second = share_links.create(conn, other.id, ttl_hours=1, actor=other.owner)

    shared = share_links.find_shared_board(conn, link.token)

    assert shared is not None
    assert (shared.link_id, shared.project_id, shared.project, shared.owner) == (
        link.id,
        project.id,
        project.name,
        project.owner,
    )
    assert [one.id for one in share_links.list_links(conn, other.id)] == [second.id]
    assert share_links.list_valid(conn, {link.id, second.id, 999_999}) == {link.id, second.id}
    assert share_links.list_valid(conn, set()) == set()


@pytest.mark.parametrize("token", ["", "x", "x" * 43, "x" * 44, "é" * 43])
def test_an_unknown_token_shows_nothing(conn: Connection, project: Project, token: str) -> None:
    share_links.create(conn, project.id, ttl_hours=1, actor=project.owner)
    assert share_links.find_shared_board(conn, token) is None


def _expire(conn: Connection, project: Project, _link: share_links.CreatedShareLink) -> None:
    conn.execute("UPDATE share_link SET expires_at = clock_timestamp() WHERE project_id = %s", (project.id,))


def _purge(conn: Connection, project: Project, _link: share_links.CreatedShareLink) -> None:
    assert project_purge.begin_purge(conn, project.id, actor="cli")


_ENDS: dict[str, Callable[[Connection, Project, share_links.CreatedShareLink], object]] = {
    "expired": _expire,
    "revoked": lambda conn, project, link: share_links.revoke(conn, project.id, link.id, actor=project.owner),
    "archived": lambda conn, project, _: projects.archive(conn, project.id, actor="cli"),
    "being deleted": _purge,
    "owner suspended": lambda conn, project, _: owners.suspend(conn, project.owner_id, reason="x", actor="cli"),
}


@pytest.mark.parametrize("end", _ENDS.values(), ids=list(_ENDS))
def test_a_link_ends(
    conn: Connection, project: Project, end: Callable[[Connection, Project, share_links.CreatedShareLink], object]
) -> None:
    link = share_links.create(conn, project.id, ttl_hours=1, actor=project.owner)
    end(conn, project, link)
    assert share_links.find_shared_board(conn, link.token) is None
    assert share_links.list_valid(conn, {link.id}) == set()


def test_reopening_a_project_does_not_revive_its_links(conn: Connection, project: Project) -> None:
    link = share_links.create(conn, project.id, ttl_hours=1, actor=project.owner)
    projects.archive(conn, project.id, actor="cli")
    projects.reopen(conn, project.id, actor="cli")
    assert share_links.find_shared_board(conn, link.token) is None
    assert [one.state for one in share_links.list_links(conn, project.id)] == ["revoked"]


def test_a_link_is_refused_where_nothing_may_be_granted(conn: Connection, project: Project) -> None:
    projects.archive(conn, project.id, actor="cli")
    with pytest.raises(BusError, match="archived"), conn.raw.transaction():
        share_links.create(conn, project.id, ttl_hours=1, actor=project.owner)
    projects.reopen(conn, project.id, actor="cli")
    for hours in (0, share_links.MAX_HOURS + 1):
        with pytest.raises(BusError, match="ttl_hours"):
            share_links.create(conn, project.id, ttl_hours=hours, actor=project.owner)
    for _ in range(share_links.MAX_LINKS):
        last = share_links.create(conn, project.id, ttl_hours=1, actor=project.owner)
    with pytest.raises(BusError, match="revoke one first"):
        share_links.create(conn, project.id, ttl_hours=1, actor=project.owner)
    assert share_links.revoke(conn, project.id, last.id, actor=project.owner)
    owners.suspend(conn, project.owner_id, reason="x", actor="cli")
    with pytest.raises(OwnerSuspended):
        share_links.create(conn, project.id, ttl_hours=1, actor=project.owner)


def test_links_are_revoked_once_in_their_project_and_audited(conn: Connection, project: Project) -> None:
    other = make_project(conn, "other")
    link = share_links.create(conn, project.id, ttl_hours=24, actor=project.owner)
    with pytest.raises(BusError, match="no such share link"):
        share_links.revoke(conn, other.id, link.id, actor=other.owner)
    assert share_links.revoke(conn, project.id, link.id, actor=project.owner)
    assert not share_links.revoke(conn, project.id, link.id, actor=project.owner)
    entries = audit.list_for_owner(conn, project.owner_id, audit.AuditFilter(action="share_link"))
    assert [(entry.action, entry.project_id) for entry in entries] == [
        ("share_link.revoke", project.id),
        ("share_link.create", project.id),
    ]
    assert all(link.token not in f"{entry}" for entry in entries)


def test_expired_links_are_pruned_after_thirty_days(conn: Connection, project: Project) -> None:
    for days in (29, 31):
        link = share_links.create(conn, project.id, ttl_hours=1, actor=project.owner)
        conn.execute(
            "UPDATE share_link SET expires_at = clock_timestamp() - make_interval(days => %s) WHERE id = %s",
            (days, link.id),
        )
    assert retention.prune_batch(conn, "share_links") == 1
    assert len(share_links.list_links(conn, project.id)) == 1
