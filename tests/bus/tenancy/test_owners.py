"""Owners: private addresses, public handles, suspension."""

import pytest

from bus.db import Connection, Database
from bus.operations import console_queries
from bus.rules import validation
from bus.tenancy import audit, owners
from tests.assertions import assert_refused
from tests.concurrency import run_concurrently
from tests.factories import make_owner


def test_an_owner_is_found_by_handle_and_by_address_in_any_case(conn: Connection) -> None:
    ada = owners.add(conn, "Ada@Example.ORG", handle="ada-l", operator=True, actor="cli")
    assert (ada.email, ada.handle, ada.operator, ada.suspended_at) == ("Ada@example.org", "ada-l", True, None)
    for spelling in ("ada-l", "ADA-L", "ada@example.org", "ADA@EXAMPLE.ORG"):
        assert owners.get(conn, spelling) == ada


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ("missing", "not_found"),
        ("missing@example.org", "not_found"),
        ("x" * 254, "not_found"),
        ("", "invalid_argument"),
        ("a\0b", "invalid_argument"),
        ("\ud800", "invalid_argument"),
        ("x" * 255, "invalid_argument"),
    ],
)
def test_an_unknown_owner_is_not_found(conn: Connection, wanted: str, code: str) -> None:
    with assert_refused(conn, code):
        owners.get(conn, wanted)


@pytest.mark.parametrize(
    ("email", "handle"),
    [
        ("ada@example.org", "ada"),
        ("Ada.Lovelace@example.org", "ada-lovelace"),
        ("élodie@example.org", "elodie"),
        ("日本@example.org", "owner"),
        ("a+b_c@example.org", "a-b-c"),
        ("admin@example.org", "admin-1"),
        ("x" * 64 + "@example.org", "x" * 56),
    ],
)
def test_a_handle_is_suggested_from_the_address(conn: Connection, email: str, handle: str) -> None:
    owner = owners.add(conn, email, actor="cli")
    assert owner.handle == handle
    assert validation.handle(owner.handle, "handle") == handle


def test_a_suggested_handle_is_free(conn: Connection) -> None:
    handles = [owners.add(conn, f"ada@{domain}.org", actor="cli").handle for domain in ("a", "b", "c")]
    assert handles == ["ada", "ada-2", "ada-3"]
    owners.add(conn, "x@d.org", handle="ada-4", actor="cli")
    assert owners.add(conn, "ada@e.org", actor="cli").handle == "ada-5"


@pytest.mark.parametrize("handle", ["", "-a", "a-", "a--b", "A", "a b", "a/b", "ä", "x" * 65, "admin", "a\0", "mcp"])
def test_a_malformed_or_reserved_handle_is_refused(conn: Connection, handle: str) -> None:
    with assert_refused(conn, "invalid_argument"):
        owners.add(conn, "ada@example.org", handle=handle, actor="cli")


@pytest.mark.parametrize("email", ["", "ada", "@x.org", "ada@", "a b@x.org", "a@b@x.org", "a\0@x.org", "\ud800@x.org"])
def test_a_malformed_address_is_refused(conn: Connection, email: str) -> None:
    with assert_refused(conn, "invalid_argument"):
        owners.add(conn, email, actor="cli")


def test_addresses_and_handles_are_unique(conn: Connection) -> None:
    owners.add(conn, "ada@example.org", handle="ada", actor="cli")
    with assert_refused(conn, "conflict") as caught:
        owners.add(conn, "ADA@example.org", handle="other", actor="cli")
    assert "e-mail" in caught.value.message
    with assert_refused(conn, "conflict") as caught:
        owners.add(conn, "other@example.org", handle="ada", actor="cli")
    assert "handle" in caught.value.message


def test_suspending_and_lifting_return_whether_anything_changed(conn: Connection) -> None:
    ada = owners.add(conn, "ada@example.org", actor="cli")
    assert not owners.lift_suspension(conn, ada.id, actor="operator")
    assert owners.suspend(conn, ada.id, reason="unpaid", actor="operator")
    assert not owners.suspend(conn, ada.id, reason="again", actor="operator")
    assert owners.get(conn, "ada").suspended_at is not None
    assert owners.lift_suspension(conn, ada.id, actor="operator")
    assert owners.get(conn, "ada").suspended_at is None
    actions = conn.fetch_all("SELECT action, actor, detail FROM audit WHERE owner_id = %s ORDER BY id", (ada.id,))
    assert actions == [
        ("owner.add", "cli", {"operator": False}),
        ("owner.suspend", "operator", {"reason": "unpaid"}),
        ("owner.lift", "operator", {}),
    ]


def test_owners_page_by_id(conn: Connection) -> None:
    created = [owners.add(conn, f"a{number}@example.org", actor="cli") for number in range(3)]
    assert owners.list_owners(conn, after=created[0].id - 1) == created
    assert owners.list_owners(conn, after=created[0].id, limit=1) == created[1:2]


def test_granting_and_withdrawing_operator_rights_is_audited(conn: Connection) -> None:
    owner = make_owner(conn, "risen")
    assert owners.set_operator(conn, owner.id, True, actor="cli")
    assert not owners.set_operator(conn, owner.id, True, actor="cli")
    assert owners.get(conn, "risen").operator
    assert owners.set_operator(conn, owner.id, False, actor="op")
    assert [(entry.action, entry.detail) for entry in audit.list_for_owner(conn, owner.id)][:2] == [
        ("owner.operator", {"operator": False}),
        ("owner.operator", {"operator": True}),
    ]


def test_the_audit_log_explains_the_state_after_concurrent_suspensions_and_lifts(db: Database) -> None:
    with db.transaction() as conn:
        owner = make_owner(conn, "contested")
    outcomes = run_concurrently(
        db,
        *[lambda conn: owners.suspend(conn, owner.id, reason="abuse", actor="op")] * 4,
        *[lambda conn: owners.lift_suspension(conn, owner.id, actor="op", note="fine")] * 4,
    )
    with db.connection() as conn:
        summary = console_queries.get_owner(conn, owner.id)
        actions = [entry.action for entry in reversed(audit.list_for_owner(conn, owner.id))][1:]
    # Each change is recorded, suspensions and lifts alternate, and the last one stands.
    assert len(actions) == sum(outcomes)
    assert actions == [("owner.suspend", "owner.lift")[number % 2] for number in range(len(actions))]
    assert (summary.suspended_at is not None) == (actions[-1] == "owner.suspend")
