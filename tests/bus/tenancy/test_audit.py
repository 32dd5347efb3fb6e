"""The audit log: filters, and the entries that an operator sees."""

from bus.db import Connection
from bus.tenancy import audit, owners
from bus.tenancy.audit import AuditFilter
from tests.factories import make_agent, make_owner, make_project


def test_all_conditions_of_a_filter_apply(conn: Connection) -> None:
    owner, other = make_owner(conn, "audited"), make_owner(conn, "another")
    project = make_project(conn, "apollo", owner)
    make_agent(conn, project, "a")
    owners.suspend(conn, owner.id, reason="abuse", actor="op")
    owners.lift_suspension(conn, owner.id, actor="op", note="a mistake")
    entries = audit.list_for_owner(conn, owner.id)
    assert audit.list_for_owner(conn, owner.id, AuditFilter(actor="op")) == entries[:2]
    assert entries[0].detail == {"reason": "a mistake"}
    assert [entry.action for entry in audit.list_for_owner(conn, owner.id, AuditFilter(action="owner"))] == [
        "owner.lift", "owner.suspend", "owner.add",
    ]  # fmt: skip
    assert [entry.action for entry in audit.list_for_owner(conn, owner.id, AuditFilter(action="owner.lift"))] == [
        "owner.lift"
    ]
    assert audit.list_for_owner(conn, owner.id, AuditFilter(action="own")) == []
    assert audit.list_for_owner(conn, owner.id, AuditFilter(action="%")) == []
    middle = entries[1].at
    assert audit.list_for_owner(conn, owner.id, AuditFilter(since=middle)) == entries[:2]
    assert audit.list_for_owner(conn, owner.id, AuditFilter(until=middle)) == entries[1:]
    assert (
        audit.list_for_owner(conn, owner.id, AuditFilter(actor="op", action="owner.lift", since=middle, until=middle))
        == []
    )
    assert audit.list_for_owner(conn, other.id, AuditFilter(actor="op")) == []
    assert audit.list_for_operator(conn, AuditFilter(actor="op"), owner_id=owner.id) == entries[:2]
    assert {entry.owner for entry in audit.list_for_operator(conn, limit=1000)} >= {"audited", "another"}


def test_the_operators_audit_log_hides_surfaces_and_webhook_urls(conn: Connection) -> None:
    owner = make_owner(conn, "worker-bee")
    project = make_project(conn, "apollo", owner)
    audit.record(conn, owner.id, "x", "lease.release", "src/secret-plan.py", project_id=project.id)
    audit.record(conn, owner.id, "x", "webhook.add", "https://hooks.example.org/services/T0/secret")
    for_owner = {entry.action: entry.subject for entry in audit.list_for_owner(conn, owner.id)}
    for_operator = {entry.action: entry.subject for entry in audit.list_for_operator(conn, owner_id=owner.id)}
    assert for_owner["lease.release"] == "src/secret-plan.py"
    assert (for_operator["lease.release"], for_operator["webhook.add"]) == ("a lease", "hooks.example.org")
