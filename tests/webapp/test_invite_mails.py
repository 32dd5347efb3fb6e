"""Inviting a person by e-mail on the page, and accepting with the mailed link."""

import re
from collections.abc import Callable

import pytest

from bus.config.redaction import MaskedSetting
from bus.db import Database
from bus.notifications import invite_mails, mail_addresses, outbox
from bus.operations import process_registry
from bus.tenancy import memberships, owners
from bus.tenancy.projects import Project
from tests.factories import make_owner, make_project
from tests.webapp.fake_oidc import FakeOidcProvider
from tests.webapp.oauth_flow import follow_provider_redirect, start_provider_sign_in
from tests.webapp.web_client import Browser, WebApp

_EMAIL = "carol@example.net"


@pytest.fixture
def project(db: Database) -> Project:
    with db.transaction() as conn:
        return make_project(conn, "apollo", make_owner(conn, "grace"))


@pytest.fixture
def mail_server(db: Database) -> None:
    """A running worker that has a mail server."""
    settings = {"SMTP_URL": MaskedSetting("smtp://mail.example", is_default=False)}
    with db.transaction() as conn:
        process_registry.record_heartbeat(conn, "w", "worker", pid=1, uptime_seconds=1, settings=settings, metrics={})


def _browser(site: WebApp, db: Database, handle: str = "grace") -> Browser:
    with db.connection() as conn:
        return site.new_browser().sign_in(conn, owners.get(conn, handle))


def _invite(browser: Browser, project: Project, email: str = _EMAIL) -> str:
    """Create an invite on the page and return the page that follows."""
    people = f"/admin/projects/{project.id}/people/"
    browser.get(people)
    return browser.follow_redirects(browser.submit(f"{people}invites", role="member", email=email)).text


def _take_code(db: Database) -> str:
    """Take the code of the mail as a worker does."""
    with db.transaction() as conn:
        (message,) = outbox.take_due(conn)
        prepared = invite_mails.prepare(conn, message)
        assert prepared is not None
        outbox.record_attempt(conn, prepared, delivered=True, result="accepted")
    return str(prepared.content["code"])


@pytest.mark.usefixtures("mail_server")
def test_the_page_says_that_the_mail_is_queued_and_sent(site: WebApp, db: Database, project: Project) -> None:
    grace = _browser(site, db)
    assert f"An e-mail to {_EMAIL} is queued." in _invite(grace, project)
    people = f"/admin/projects/{project.id}/people/"
    page = grace.get(people).text
    assert "The link is mailed to them." in page
    assert f"{_EMAIL} (e-mail queued)" in page
    _take_code(db)
    assert f"{_EMAIL} (e-mail sent)" in grace.get(people).text


@pytest.mark.usefixtures("mail_server")
def test_a_revoked_invite_is_not_mailed(site: WebApp, db: Database, project: Project) -> None:
    grace = _browser(site, db)
    _invite(grace, project)
    people = f"/admin/projects/{project.id}/people/"
    page = grace.get(people).text
    revoke = re.search(rf"{people}invites/\d+/revoke", page)
    assert revoke is not None
    grace.submit(revoke[0])
    with db.transaction() as conn:
        (message,) = outbox.take_due(conn)
        assert invite_mails.prepare(conn, message) is None
    page = grace.get(people).text
    assert _EMAIL in page
    assert "(e-mail" not in page


def test_without_a_mail_server_the_page_asks_to_copy_the_link(site: WebApp, db: Database, project: Project) -> None:
    grace = _browser(site, db)
    card = _invite(grace, project)
    assert "queued" not in card
    assert "Send it now" in card
    assert "The link is mailed to them." not in grace.get(f"/admin/projects/{project.id}/people/").text
    with db.connection() as conn:
        assert conn.fetch_one("SELECT count(*) FROM notice") == (0,)


def _unsubscribe(db: Database, project: Project) -> None:
    with db.transaction() as conn:
        mail_addresses.unsubscribe(conn, mail_addresses.register(conn, project.owner_id, _EMAIL))


@pytest.mark.usefixtures("mail_server")
@pytest.mark.parametrize("reason", ["limit", "unsubscribed"])
def test_the_page_says_why_nothing_is_mailed(
    site: WebApp, db: Database, project: Project, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    if reason == "limit":
        monkeypatch.setattr(invite_mails, "MAX_PER_OWNER", 0)
    else:
        _unsubscribe(db, project)
    card = _invite(_browser(site, db), project)
    assert "Not mailed." in card
    assert {"limit": "reached the limit", "unsubscribed": f"{_EMAIL} wants no e-mails"}[reason] in card
    assert "/join/inv_" in card


@pytest.mark.usefixtures("mail_server")
def test_an_invite_without_an_address_is_not_mailed(site: WebApp, db: Database, project: Project) -> None:
    assert "Send it now" in _invite(_browser(site, db), project, email="")
    with db.connection() as conn:
        assert conn.fetch_one("SELECT count(*) FROM notice") == (0,)


@pytest.mark.usefixtures("mail_server")
def test_a_person_without_an_account_signs_up_from_the_mail_and_joins(
    make_web: Callable[..., WebApp], issuer: FakeOidcProvider, db: Database, project: Project
) -> None:
    site = make_web(**issuer.env())
    _invite(_browser(site, db), project)
    code = _take_code(db)
    issuer.user_claims["email"] = _EMAIL
    carol = site.new_browser()
    assert "invites you" in carol.get(f"/join/{code}").text
    accept = f"/join/{code}/accept/"
    sign_in = carol.get(accept).location
    answer = carol.get(follow_provider_redirect(start_provider_sign_in(carol, page=sign_in)))
    carol.get(answer.location)
    answer = carol.submit("", handle="carol")
    # Back to the invite.
    assert (answer.status_code, answer.location) == (303, accept)
    assert "Join grace/apollo" in carol.get(accept).text
    board = carol.follow_redirects(carol.submit(f"/join/{code}/accept/person"))
    assert "You joined the project" in board.text
    with db.connection() as conn:
        assert memberships.find_role(conn, owners.get(conn, "carol").id, project.id) == "member"
