"""E-mails with the link of an invite: no code in the outbox, within caps, and only while the invite is open."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from bus.config.redaction import MaskedSetting
from bus.db import Connection, Database
from bus.errors import BusError
from bus.notifications import invite_mails, mail_addresses, outbox
from bus.notifications.outbox import OutboxMessage
from bus.operations import process_registry, project_purge
from bus.rules.token_format import fingerprint
from bus.tenancy import invite_queries, invite_redemption, invites, memberships, owners, projects
from bus.tenancy.invite_redemption import Acceptor
from bus.tenancy.owners import Owner
from bus.tenancy.projects import Project
from tests.concurrency import run_numbered_concurrently
from tests.factories import make_member, make_owner, make_project

_EMAIL = "Carol@example.net"


def _invite(conn: Connection, project: Project, giver: Owner, email: str = _EMAIL) -> tuple[invites.CreatedInvite, str]:
    invite = invites.create_for_person(
        conn, project.id, "member", email=email, acting_owner_id=giver.id, actor=giver.handle
    )
    return invite, invite_mails.queue(conn, project.id, invite.id, giver_id=giver.id)


@pytest.fixture
def giver(conn: Connection, project: Project) -> Owner:
    return owners.get(conn, project.owner)


def _take(conn: Connection) -> OutboxMessage:
    (message,) = outbox.take_due(conn)
    return message


def _code(conn: Connection, message: OutboxMessage) -> str:
    prepared = invite_mails.prepare(conn, message)
    assert prepared is not None
    return str(prepared.content["code"])


def _state(conn: Connection, project: Project, invite_id: int) -> str:
    return invite_mails.find_states(conn, project.id, [invite_id])[invite_id]


def test_an_invite_is_mailed_with_a_code_that_the_database_never_holds(
    conn: Connection, project: Project, giver: Owner
) -> None:
    invite, result = _invite(conn, project, giver)
    assert (result, _state(conn, project, invite.id)) == ("queued", "waiting")
    message = _take(conn)
    assert (message.target, message.owner_id) == (_EMAIL, giver.id)
    assert set(message.content) == {"invite_id", "unsubscribe_token"}
    prepared = invite_mails.prepare(conn, message)
    assert prepared is not None
    content = prepared.content
    assert (content["giver"], content["project"], content["role"]) == (giver.handle, project.name, "member")
    assert content["expires_at"] == invite.expires_at.isoformat()
    rows = json.dumps(
        conn.fetch_all("SELECT to_jsonb(n) FROM notice n") + conn.fetch_all("SELECT to_jsonb(i) FROM invite i")
    )
    assert content["code"] not in rows
    assert invite.code not in rows
    outbox.record_attempt(conn, prepared, delivered=True, result="accepted")
    assert _state(conn, project, invite.id) == "delivered"
    # The giver's own link works beside it, and they are one invite.
    for code in (invite.code, content["code"]):
        assert invite_redemption.get_offer(conn, code).email == _EMAIL
    carol = make_owner(conn)
    acceptor = Acceptor(carol.handle, frozenset({_EMAIL.lower()}))
    assert invite_redemption.accept_as_person(conn, content["code"], carol.id, acceptor) == project.id
    with pytest.raises(BusError, match="used already"):
        invite_redemption.accept_as_person(conn, invite.code, make_owner(conn).id, acceptor)


def test_the_mailed_code_is_for_its_address_alone(conn: Connection, project: Project, giver: Owner) -> None:
    _invite(conn, project, giver)
    code, other = _code(conn, _take(conn)), make_owner(conn)
    with pytest.raises(BusError, match="another e-mail address"):
        invite_redemption.accept_as_person(conn, code, other.id, Acceptor(other.handle, frozenset({other.email})))


def test_a_repeated_attempt_has_a_new_code(conn: Connection, project: Project, giver: Owner) -> None:
    invite, _ = _invite(conn, project, giver)
    message = _take(conn)
    first = _code(conn, message)
    second = _code(conn, message)
    assert invite_redemption.get_offer(conn, second).role == "member"
    with pytest.raises(BusError, match="not valid"):
        invite_redemption.get_offer(conn, first)
    assert conn.fetch_one("SELECT mailed_sha256 FROM invite WHERE id = %s", (invite.id,)) == (fingerprint(second),)


_ENDS: dict[str, Callable[[Connection, Project, Owner, int], Any]] = {
    "revoked": lambda conn, project, lead, invite_id: invites.revoke_for_person(
        conn, project.id, invite_id, acting_owner_id=lead.id, actor=lead.handle
    ),
    "revoked by the project's owner": lambda conn, project, _, invite_id: invites.revoke(
        conn, project.id, invite_id, actor=project.owner
    ),
    "expired": lambda conn, _, __, invite_id: conn.execute(
        "UPDATE invite SET expires_at = clock_timestamp() WHERE id = %s", (invite_id,)
    ),
    "accepted": lambda conn, _, __, invite_id: conn.execute("UPDATE invite SET used = 1 WHERE id = %s", (invite_id,)),
    "giver is a member": lambda conn, project, lead, _: memberships.set_role(
        conn, project.id, lead.id, "member", acting_owner_id=project.owner_id, actor=project.owner
    ),
    "giver left": lambda conn, project, lead, _: memberships.remove(
        conn, project.id, lead.id, acting_owner_id=lead.id, actor=lead.handle
    ),
    "giver suspended": lambda conn, _, lead, __: owners.suspend(conn, lead.id, reason="abuse", actor="op"),
    "project's owner suspended": lambda conn, project, _, __: owners.suspend(
        conn, project.owner_id, reason="abuse", actor="op"
    ),
    "archived": lambda conn, project, _, __: projects.archive(conn, project.id, actor="owner"),
    "being deleted": lambda conn, project, _, __: project_purge.begin_purge(conn, project.id, actor="owner"),
}


@pytest.mark.parametrize("end", _ENDS.values(), ids=list(_ENDS))
def test_an_invite_that_ended_before_it_was_sent_is_not_mailed(
    conn: Connection, project: Project, end: Callable[[Connection, Project, Owner, int], Any]
) -> None:
    lead = make_member(conn, project, "lead")
    invite, _ = _invite(conn, project, lead)
    end(conn, project, lead, invite.id)
    message = _take(conn)
    assert invite_mails.prepare(conn, message) is None
    assert conn.fetch_one("SELECT mailed_sha256 FROM invite WHERE id = %s", (invite.id,)) == (None,)
    (entry,) = outbox.list_log_entries(conn, lead.id)
    assert (entry.state, entry.last_result) == ("given up", "the invite is no longer open")
    assert outbox.take_due(conn) == []


def test_an_owner_mails_few_invites_a_day_and_others_have_their_own_limit(
    conn: Connection, project: Project, giver: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invite_mails, "MAX_PER_OWNER", 2)
    results = [_invite(conn, project, giver, f"a{number}@example.net")[1] for number in range(3)]
    assert results == ["queued", "queued", "limit"]
    lead = make_member(conn, project, "lead")
    assert _invite(conn, project, lead, "b@example.net")[1] == "queued"
    # An invite that is not mailed can be handed over by its giver.
    states = {
        invite.email: invite.state
        for invite in invite_queries.list_invites(conn, project.id, for_people=True)
        if invite.email
    }
    assert states["a2@example.net"] == "open"
    conn.execute("UPDATE notice SET created_at = created_at - interval '25 hours'")
    assert _invite(conn, project, giver, "c@example.net")[1] == "queued"


def test_all_e_mails_of_an_owner_count(
    conn: Connection, project: Project, giver: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail_addresses, "MAX_EMAILS_PER_DAY", 1)
    outbox.enqueue(conn, "test", owner_id=giver.id, email=giver.email)
    assert _invite(conn, project, giver)[1] == "limit"


def test_the_holder_of_an_address_ends_the_mail_of_one_owner(conn: Connection, project: Project, giver: Owner) -> None:
    _invite(conn, project, giver)
    invite, _ = _invite(conn, project, giver)
    first, _ = outbox.take_due(conn)
    address = mail_addresses.find_by_unsubscription(conn, first.content["unsubscribe_token"])
    assert address is not None
    mail_addresses.unsubscribe(conn, address)
    assert _state(conn, project, invite.id) == "given up"
    assert _invite(conn, project, giver, _EMAIL.upper())[1] == "unsubscribed"
    assert _invite(conn, project, make_member(conn, project, "lead"))[1] == "queued"


def test_many_owners_at_once_mail_three_invites_to_one_address(db: Database) -> None:
    with db.transaction() as conn:
        hosts = [make_project(conn) for _ in range(8)]
        givers = [owners.get(conn, host.owner) for host in hosts]

    def invite(conn: Connection, number: int) -> str:
        return _invite(conn, hosts[number], givers[number], _EMAIL.upper() if number % 2 else _EMAIL)[1]

    results = run_numbered_concurrently(db, 8, invite)
    assert sorted(results) == ["limit"] * 5 + ["queued"] * 3


def test_states_are_of_the_project_alone(conn: Connection, project: Project, giver: Owner) -> None:
    invite, _ = _invite(conn, project, giver)
    assert invite_mails.find_states(conn, make_project(conn).id, [invite.id]) == {}


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [("worker", "smtp://***@mail.example", True), ("worker", "", False), ("beat", "smtp://mail.example", False)],
)
def test_mail_is_configured_where_a_running_worker_has_a_server(
    conn: Connection, kind: str, value: str, expected: bool
) -> None:
    assert not process_registry.has_mail_server(conn)
    settings = {"SMTP_URL": MaskedSetting(value, is_default=not value)}
    process_registry.record_heartbeat(conn, "a", kind, pid=1, uptime_seconds=1, settings=settings, metrics={})
    assert process_registry.has_mail_server(conn) == expected
    conn.execute("UPDATE process SET seen_at = seen_at - interval '2 minutes'")
    assert not process_registry.has_mail_server(conn)
