"""Changes of handles: a former handle finds its owner, and nothing else ever gets it."""

import pytest

from bus import limits
from bus.coordination import ledger, posts
from bus.db import Connection, Database
from bus.errors import BusError
from bus.operations import console_queries
from bus.tenancy import audit, invites, owners, participant_queries, participants, participations, projects
from bus.tenancy.audit import AuditFilter
from tests import factories
from tests.assertions import assert_refused
from tests.concurrency import failures, run_concurrently, run_numbered_concurrently, successes


def test_a_former_handle_finds_its_owner_and_its_names(conn: Connection) -> None:
    ada = factories.make_owner(conn, "ada")
    project = factories.make_project(conn, "apollo", ada)
    sender, reader = (factories.make_agent(conn, project, label) for label in ("sender", "reader"))
    first = posts.create(conn, sender.ctx, "before", to_actor="ada/reader")
    assert owners.rename(conn, ada.id, " Lovelace ", actor="ada")
    renamed = owners.get(conn, "lovelace")
    assert (renamed.id, renamed.handle, owners.get(conn, "ada")) == (ada.id, "lovelace", renamed)
    assert owners.list_former_handles(conn, ada.id) == ["ada"]
    # What agents see, and the names by which they reach each other.
    assert participant_queries.whoami(conn, reader.ctx).actor == "lovelace/reader"
    assert {one.actor for one in participant_queries.list_participants(conn, reader.ctx).participants} == {
        "lovelace/reader", "lovelace/sender",
    }  # fmt: skip
    for name in ("reader", "ada/reader", "lovelace/reader"):
        posts.create(conn, sender.ctx, "after", to_actor=name)
    events = ledger.query_events(conn, reader.ctx, actor="ada/sender").events
    assert [event.actor for event in events] == ["lovelace/sender"] * 3 + ["ada/sender"]
    assert events == ledger.query_events(conn, reader.ctx, actor="lovelace/sender").events
    assert events[-1].id == first.post_id
    # Projects by their qualified name, and the lists of operators.
    assert projects.get_by_name(conn, "ada/apollo") == projects.get_by_name(conn, "lovelace/apollo")
    assert [one.id for one in console_queries.list_owners(conn, "ada")] == [ada.id]
    assert not owners.rename(conn, ada.id, "lovelace", actor="lovelace")


def test_the_audit_log_has_the_change_and_is_filtered_under_all_handles(conn: Connection) -> None:
    ada = factories.make_owner(conn, "ada")
    projects.add(conn, ada.id, "first", actor="ada")
    owners.rename(conn, ada.id, "lovelace", actor="ada")
    projects.add(conn, ada.id, "second", actor="lovelace")
    (change,) = audit.list_for_owner(conn, ada.id, AuditFilter(action="owner.rename"))
    assert (change.actor, change.subject, change.owner) == ("ada", "lovelace", "lovelace")
    assert change.detail == {"before": "ada"}
    for actor in ("ada", "lovelace"):
        entries = audit.list_for_owner(conn, ada.id, AuditFilter(actor=actor))
        assert [entry.subject for entry in entries] == ["second", "lovelace", "first"]
    assert audit.list_for_owner(conn, ada.id, AuditFilter(actor="love")) == []


def test_a_former_handle_is_never_given_out_again(conn: Connection) -> None:
    ada, bob = factories.make_owner(conn, "ada"), factories.make_owner(conn, "bob")
    owners.rename(conn, ada.id, "lovelace", actor="ada")
    for handle in ("ada", "lovelace"):
        with assert_refused(conn, "conflict"):
            owners.rename(conn, bob.id, handle, actor="bob")
        with assert_refused(conn, "conflict"):
            owners.add(conn, "new@example.org", handle=handle, actor="cli")
    assert owners.suggest_handle(conn, "ada@example.org") == "ada-2"
    # Its owner may return to it.
    assert owners.rename(conn, ada.id, "ada", actor="lovelace")
    assert owners.list_former_handles(conn, ada.id) == ["lovelace"]


def test_no_participant_bears_a_handle_of_its_owner(conn: Connection) -> None:
    ada = factories.make_owner(conn, "ada")
    project = factories.make_project(conn, "apollo", ada)
    factories.make_agent(conn, project, "Reader")
    with assert_refused(conn, "conflict"):
        owners.rename(conn, ada.id, "reader", actor="ada")
    owners.rename(conn, ada.id, "lovelace", actor="ada")
    for label in ("ada", "Lovelace"):
        with assert_refused(conn, "conflict"):
            participants.create(conn, ada.id, label, actor="ada")
        with assert_refused(conn, "conflict"):
            participations.join(conn, project.id, label, actor="ada")
        with assert_refused(conn, "conflict"):
            invites.create_for_owner(conn, project.id, participant_name=label, actor="ada")


@pytest.mark.parametrize("handle", ["", "a b", "-a", "admin", "x" * 65, "a/b", "ä", "a\0"])
def test_a_malformed_or_reserved_handle_is_refused(conn: Connection, handle: str) -> None:
    ada = factories.make_owner(conn, "ada")
    with assert_refused(conn, "invalid_argument"):
        owners.rename(conn, ada.id, handle, actor="ada")
    with assert_refused(conn, "not_found"):
        owners.rename(conn, ada.id + 1_000_000, "grace", actor="ada")


def test_the_number_of_handles_is_limited(conn: Connection) -> None:
    ada = factories.make_owner(conn, "ada")
    for number in range(1, limits.MAX_OWNER_HANDLES):
        owners.rename(conn, ada.id, f"ada-{number}", actor="ada")
    with assert_refused(conn, "conflict") as caught:
        owners.rename(conn, ada.id, "one-more", actor="ada")
    assert "at most 10" in caught.value.message
    assert owners.rename(conn, ada.id, "ada", actor="ada")


def test_of_two_owners_who_take_a_handle_at_once_one_gets_it(db: Database) -> None:
    with db.transaction() as conn:
        ids = [factories.make_owner(conn).id for _ in range(8)]
    for round_ in range(6):
        outcomes = run_numbered_concurrently(
            db, len(ids), lambda conn, number: owners.rename(conn, ids[number], f"wanted-{round_}", actor="x")  # noqa: B023
        )  # fmt: skip
        refused = failures(outcomes)
        assert len(successes(outcomes)) == 1
        assert {error.code for error in refused if isinstance(error, BusError)} == {"conflict"}
        assert all(isinstance(error, BusError) for error in refused)


def test_a_handle_that_is_left_is_not_taken_in_the_same_moment(db: Database) -> None:
    with db.transaction() as conn:
        ada = factories.make_owner(conn, "ada")
    for round_ in range(8):
        left, taken = run_concurrently(
            db,
            lambda conn: owners.rename(conn, ada.id, f"lovelace-{round_}", actor="ada"),  # noqa: B023
            lambda conn: owners.add(conn, "new@example.org", handle="ada", actor="cli"),
        )
        assert left is True
        assert isinstance(taken, BusError)
        assert taken.code == "conflict"
        with db.transaction() as conn:
            owners.rename(conn, ada.id, "ada", actor="ada")


def test_a_participant_and_its_owner_do_not_get_one_name_at_once(db: Database) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
        owner_id = conn.fetch_one("SELECT owner_id FROM project WHERE id = %s", (project.id,))[0]
    for round_ in range(8):
        outcomes = run_concurrently(
            db,
            lambda conn: owners.rename(conn, owner_id, f"grace-{round_}", actor="x"),  # noqa: B023
            lambda conn: participants.create(conn, owner_id, f"grace-{round_}", actor="x"),  # noqa: B023
        )
        assert len(successes(outcomes)) == 1
