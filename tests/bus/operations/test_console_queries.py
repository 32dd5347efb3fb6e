"""Queries of the operator console: owners, projects and open invites of all tenants."""

from bus.coordination import leases
from bus.db import Connection
from bus.operations import console_queries, project_purge
from bus.tenancy import invites, owners, projects
from tests.assertions import assert_refused
from tests.factories import make_agent, make_owner, make_project


def test_owners_match_any_part_of_handle_or_address_and_page(conn: Connection) -> None:
    added = [make_owner(conn, f"finder-{number}") for number in range(3)]
    project = make_project(conn, "apollo", added[0])
    make_agent(conn, project)
    assert [owner.id for owner in console_queries.list_owners(conn, "INDER-")] == [
        owner.id for owner in reversed(added)
    ]
    assert [owner.handle for owner in console_queries.list_owners(conn, "inder-1@EXAMPLE")] == ["finder-1"]
    # The search text is not a LIKE pattern.
    assert console_queries.list_owners(conn, "finder%") == []
    first_page = console_queries.list_owners(conn, "finder-", limit=2)
    assert [owner.handle for owner in first_page] == ["finder-2", "finder-1"]
    assert [owner.handle for owner in console_queries.list_owners(conn, "finder-", before=first_page[-1].id)] == [
        "finder-0"
    ]
    owners.suspend(conn, added[1].id, reason="abuse", actor="op")
    (only,) = console_queries.list_owners(conn, "finder-", suspended_only=True)
    assert (only.handle, only.suspended_reason, only.plan, only.balance) == ("finder-1", "abuse", None, None)
    summary = console_queries.get_owner(conn, added[0].id)
    assert (summary.project_count, summary.event_count, summary.last_event_at) == (1, 0, None)
    with assert_refused(conn, "not_found"):
        console_queries.get_owner(conn, 2**53)
    with assert_refused(conn, "invalid_argument"):
        console_queries.list_owners(conn, "a\x00b")


def test_projects_of_all_owners_are_listed_with_their_counts(conn: Connection) -> None:
    owner = make_owner(conn, "spacer")
    full, empty, ending = (make_project(conn, name, owner) for name in ("full", "empty", "ending"))
    agent = make_agent(conn, full, "a")
    leases.acquire(conn, agent.ctx, "src")
    projects.archive(conn, empty.id, actor="x")
    project_purge.begin_purge(conn, ending.id, actor="x")
    summaries = {summary.name: summary for summary in console_queries.list_projects(conn, "SPACER/")}
    assert {name: summary.state for name, summary in summaries.items()} == {
        "full": "open", "empty": "archived", "ending": "purging",
    }  # fmt: skip
    assert (
        summaries["full"].participant_count,
        summaries["full"].event_count,
        summaries["full"].post_count,
        summaries["full"].task_count,
    ) == (1, 1, 0, 0)
    assert summaries["full"].last_event_at is not None
    assert summaries["empty"].last_event_at is None
    assert [summary.name for summary in console_queries.list_projects(conn, owner_id=owner.id, state="purging")] == [
        "ending"
    ]
    assert [
        summary.name for summary in console_queries.list_projects(conn, owner_id=owner.id, before=ending.id, limit=1)
    ] == ["empty"]


def test_only_open_invites_are_listed(conn: Connection) -> None:
    owner = make_owner(conn, "inviter")
    project = make_project(conn, "apollo", owner)
    still_open, revoked, expired = (invites.create_for_owner(conn, project.id, actor="inviter") for _ in range(3))
    invites.revoke(conn, project.id, revoked.id, actor="inviter")
    conn.execute("UPDATE invite SET expires_at = clock_timestamp() WHERE id = %s", (expired.id,))
    listed = [invite for invite in console_queries.list_open_invites(conn) if invite.owner == "inviter"]
    assert [invite.id for invite in listed] == [still_open.id]
    assert console_queries.get_open_invite(conn, still_open.id).project == "apollo"
    for closed in (revoked, expired):
        with assert_refused(conn, "not_found"):
            console_queries.get_open_invite(conn, closed.id)
