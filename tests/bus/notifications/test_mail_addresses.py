"""Addresses for overdue handoffs: only confirmed ones get mail, in digests, within limits, until unsubscribed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bus.db import Connection, Database
from bus.errors import BusError
from bus.notifications import mail_addresses, outbox
from bus.tenancy import audit
from bus.tenancy.owners import Owner
from tests.concurrency import run_numbered_concurrently
from tests.factories import make_owner

_EMAIL = "oncall@example.net"


@pytest.fixture
def owner(conn: Connection) -> Owner:
    return make_owner(conn)


def _post(number: int = 1) -> dict[str, Any]:
    return {"project_id": 7, "project": "demo", "post_id": number}


def _confirm(conn: Connection, owner: Owner, email: str = _EMAIL) -> mail_addresses.MailAddress:
    address = mail_addresses.register(conn, owner.id, email)
    mail_addresses.confirm(conn, address)
    return address


def _mails(conn: Connection, kind: str) -> list[tuple[str, dict[str, Any], datetime]]:
    return [
        (target, content, due_at)
        for target, content, due_at in conn.fetch_all(
            "SELECT target, content, due_at FROM notice WHERE kind = %s ORDER BY id", (kind,)
        )
    ]


def _token(conn: Connection, name: str) -> str:
    (token,) = conn.fetch_one("SELECT content->>%s FROM notice ORDER BY id DESC LIMIT 1", (name,))
    return str(token)


def test_an_unconfirmed_address_gets_the_confirmation_and_nothing_else(conn: Connection, owner: Owner) -> None:
    for number in range(3):
        assert not mail_addresses.add_to_digest(conn, owner.id, _EMAIL, _post(number))
    assert _mails(conn, "escalation") == []
    ((target, content, _),) = _mails(conn, "confirm_address")
    assert target == _EMAIL
    # Nothing that an agent wrote.
    assert set(content) == {"owner", "confirm_token", "unsubscribe_token"}
    address = mail_addresses.find_by_confirmation(conn, content["confirm_token"])
    assert address is not None
    assert (address.state, address.owner) == ("requested", owner.handle)
    mail_addresses.confirm(conn, address)
    assert mail_addresses.add_to_digest(conn, owner.id, _EMAIL.upper(), _post())
    assert len(_mails(conn, "escalation")) == 1
    acts = [entry.action for entry in audit.list_for_owner(conn, owner.id)]
    assert acts[:2] == ["mail_address.confirm", "mail_address.request"]


def test_the_address_of_the_account_needs_no_confirmation(conn: Connection, owner: Owner) -> None:
    assert mail_addresses.add_to_digest(conn, owner.id, owner.email.upper(), _post())
    assert _mails(conn, "confirm_address") == []


def test_a_confirmation_of_one_owner_does_not_count_for_another(conn: Connection, owner: Owner) -> None:
    _confirm(conn, owner)
    assert not mail_addresses.add_to_digest(conn, make_owner(conn).id, _EMAIL, _post())


@pytest.mark.parametrize("kind", ["confirm", "unsubscribe", "changed", "expired", "malformed"])
def test_a_link_that_was_not_mailed_works_for_nothing(
    conn: Connection, owner: Owner, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "expired":
        monkeypatch.setattr(mail_addresses, "CONFIRMATION_TTL", timedelta(seconds=-1))
    mail_addresses.request_confirmation(conn, owner.id, _EMAIL, actor="cli")
    confirm, unsubscribe = _token(conn, "confirm_token"), _token(conn, "unsubscribe_token")
    number, expires, signature = confirm.split("-", 2)
    token = {
        "confirm": unsubscribe,
        "unsubscribe": confirm,
        "changed": f"{number}-{int(expires) + 1}-{signature}",
        "expired": confirm,
        "malformed": f"{number}-x-{signature}\n",
    }[kind]
    find = mail_addresses.find_by_unsubscription if kind == "unsubscribe" else mail_addresses.find_by_confirmation
    assert find(conn, token) is None


def test_posts_within_the_interval_share_one_mail(conn: Connection, owner: Owner) -> None:
    _confirm(conn, owner)
    mail_addresses.add_to_digest(conn, owner.id, _EMAIL, _post(1))
    (first,) = outbox.take_due(conn)
    assert [post["post_id"] for post in first.content["posts"]] == [1]
    for number in range(2, 60):
        mail_addresses.add_to_digest(conn, owner.id, _EMAIL, _post(number))
    assert outbox.take_due(conn) == []
    _, (_, digest, due_at) = _mails(conn, "escalation")
    assert (len(digest["posts"]), digest["more"]) == (mail_addresses.MAX_POSTS_PER_DIGEST, 8)
    assert abs(due_at - datetime.now(UTC) - mail_addresses.DIGEST_INTERVAL) < timedelta(seconds=10)


def test_a_mail_that_is_tried_again_gets_no_further_posts(conn: Connection, owner: Owner) -> None:
    _confirm(conn, owner)
    mail_addresses.add_to_digest(conn, owner.id, _EMAIL, _post(1))
    (message,) = outbox.take_due(conn)
    outbox.record_attempt(conn, message, delivered=False, result="451 later")
    mail_addresses.add_to_digest(conn, owner.id, _EMAIL, _post(2))
    assert [len(content["posts"]) for _, content, _ in _mails(conn, "escalation")] == [1, 1]


def test_an_owner_has_a_limit_for_a_day_and_later_posts_wait(
    conn: Connection, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail_addresses, "MAX_EMAILS_PER_DAY", 3)
    for number in range(5):
        email = f"a{number}@example.net"
        _confirm(conn, owner, email)
        mail_addresses.add_to_digest(conn, owner.id, email, _post(number))
    now = datetime.now(UTC)
    waits = [due_at - now for _, _, due_at in _mails(conn, "escalation")]
    assert [wait > timedelta(hours=23) for wait in waits] == [False, False, False, True, True]
    assert len(outbox.take_due(conn)) == 3
    # Another owner has a limit of its own.
    other = make_owner(conn)
    _confirm(conn, other)
    mail_addresses.add_to_digest(conn, other.id, _EMAIL, _post())
    assert len(outbox.take_due(conn)) == 1


def test_confirmations_are_limited_for_an_address_and_for_an_owner(conn: Connection, owner: Owner) -> None:
    mail_addresses.request_confirmation(conn, owner.id, _EMAIL, actor="cli")
    with pytest.raises(BusError, match="within the last hour"):
        mail_addresses.request_confirmation(conn, owner.id, _EMAIL, actor="cli")
    # Many owners cannot flood one address,
    for _ in range(2):
        mail_addresses.request_confirmation(conn, make_owner(conn).id, _EMAIL, actor="cli")
    with pytest.raises(BusError, match="tomorrow"):
        mail_addresses.request_confirmation(conn, make_owner(conn).id, _EMAIL.upper(), actor="cli")
    # and one owner cannot write to many.
    for number in range(9):
        mail_addresses.request_confirmation(conn, owner.id, f"a{number}@example.net", actor="cli")
    with pytest.raises(BusError, match="tomorrow"):
        mail_addresses.request_confirmation(conn, owner.id, "b@example.net", actor="cli")


def test_an_unsubscribed_address_gets_nothing_until_it_is_confirmed_again(conn: Connection, owner: Owner) -> None:
    _confirm(conn, owner)
    mail_addresses.add_to_digest(conn, owner.id, _EMAIL, _post())
    address = mail_addresses.find_by_unsubscription(conn, _token(conn, "unsubscribe_token"))
    assert address is not None
    mail_addresses.unsubscribe(conn, address)
    assert outbox.take_due(conn) == []
    assert not mail_addresses.add_to_digest(conn, owner.id, _EMAIL, _post())
    # The owner cannot undo it: only the holder of the address can, with a new link.
    mail_addresses.request_confirmation(conn, owner.id, _EMAIL, actor="cli")
    assert not mail_addresses.add_to_digest(conn, owner.id, _EMAIL, _post())
    confirmed = mail_addresses.find_by_confirmation(conn, _token(conn, "confirm_token"))
    assert confirmed is not None
    mail_addresses.confirm(conn, confirmed)
    assert mail_addresses.add_to_digest(conn, owner.id, _EMAIL, _post())


def test_concurrent_posts_of_several_projects_go_into_one_mail(db: Database) -> None:
    with db.transaction() as conn:
        owner = make_owner(conn)
        _confirm(conn, owner)
    run_numbered_concurrently(
        db, 12, lambda conn, number: mail_addresses.add_to_digest(conn, owner.id, _EMAIL, _post(number))
    )
    with db.transaction() as conn:
        ((_, content, _),) = _mails(conn, "escalation")
    assert sorted(post["post_id"] for post in content["posts"]) == list(range(12))
