"""Signing in with GitHub, and linking several sign-ins to an account."""

from collections.abc import Callable

import pytest

from bus.db import Database
from tests.assertions import database_checksum
from tests.factories import make_owner
from tests.webapp.fake_oidc import FakeGitHub, FakeOidcProvider
from tests.webapp.oauth_flow import (
    assert_nothing_written,
    follow_provider_redirect,
    is_signed_in,
    sign_in,
    sign_up,
    start_provider_sign_in,
)
from tests.webapp.web_client import WebApp


def test_github_signs_a_user_up_and_in(github_web: WebApp, github: FakeGitHub) -> None:
    browser = github_web.new_browser()
    answer = sign_up(browser, "github")
    assert answer.location == "/admin/"
    page = browser.get("/account/").text
    assert "ada-lovelace" in page
    assert "ada@example.org" in page
    # The numeric id remains when the login name and the email address change.
    github.user |= {"login": "countess"}
    github.emails = [{"email": "countess@example.org", "primary": True, "verified": True}]
    again = github_web.new_browser()
    assert sign_in(again, "github").location == "/admin/"
    assert "ada-lovelace" in again.get("/account/").text


@pytest.mark.parametrize(
    "emails",
    [
        [{"email": "ada@example.org", "primary": True, "verified": False}],
        [{"email": "ada@example.org", "primary": False, "verified": True}],
        [],
        {"message": "Not Found"},
    ],
    ids=str,
)
def test_github_requires_a_primary_verified_address(
    github_web: WebApp, github: FakeGitHub, db: Database, emails: object
) -> None:
    github.emails = emails
    browser = github_web.new_browser()
    with assert_nothing_written(db):
        assert sign_in(browser, "github").location == "/sign-in"
    assert not is_signed_in(browser)


def test_a_github_code_works_once(github_web: WebApp) -> None:
    browser = github_web.new_browser()
    back = follow_provider_redirect(start_provider_sign_in(browser, "github"))
    kept = browser.cookies()
    assert browser.get(back).location == "/welcome"
    for name, value in kept.items():
        browser.flask_client.set_cookie(name, value, domain="bus.example.org", secure=True)
    assert browser.get(back).status_code == 400


def test_a_second_provider_is_linked_to_an_account(
    make_web: Callable[..., WebApp], issuer: FakeOidcProvider, github: FakeGitHub, db: Database
) -> None:
    web = make_web(**issuer.env(), **github.env())
    browser = web.new_browser()
    sign_up(browser)
    before = browser.cookies()["__Host-llm-bus"]
    back = follow_provider_redirect(start_provider_sign_in(browser, "github", "/account/", "/account/link/{}"))
    assert browser.get(back).location == "/account/#ways"
    # Linking rotates the session token.
    assert browser.cookies()["__Host-llm-bus"] != before
    account = browser.get("/account/").text
    assert "GitHub linked." in account
    # The button says that it adds another account of the provider.
    assert ">Link another account of GitHub<" in account
    assert ">Link GitHub<" not in account
    other = web.new_browser()
    assert sign_in(other, "github").location == "/admin/"
    assert "ada-l" in other.get("/account/").text
    with db.connection() as conn:
        numbers = [number for (number,) in conn.fetch_all("SELECT id FROM identity ORDER BY id")]
    browser.get("/account/")
    assert browser.submit(f"/account/ways/{numbers[0]}/unlink").status_code == 303
    # Other sessions end, and the unlinked identity no longer signs in.
    assert not is_signed_in(other)
    assert sign_in(web.new_browser()).location == "/sign-in"
    token = browser.get_csrf_token()
    browser.post(f"/account/ways/{numbers[1]}/unlink", data={"csrf_token": token})
    assert "only sign-in" in browser.get("/account/").text
    with db.connection() as conn:
        assert conn.fetch_one("SELECT count(*) FROM identity") == (1,)


def test_an_identity_of_another_owner_is_not_linked(
    make_web: Callable[..., WebApp], issuer: FakeOidcProvider, github: FakeGitHub, db: Database
) -> None:
    web = make_web(**issuer.env(), **github.env())
    sign_up(web.new_browser())
    github.emails = [{"email": "bob@example.org", "primary": True, "verified": True}]
    bob = web.new_browser()
    sign_up(bob, "github")
    back = follow_provider_redirect(start_provider_sign_in(bob, "oidc", "/account/", "/account/link/{}"))
    with db.connection() as conn:
        before = database_checksum(conn)["identity"]
    assert bob.get(back).status_code == 303
    assert "belongs to another account" in bob.get("/account/").text
    with db.connection() as conn:
        assert database_checksum(conn)["identity"] == before


def test_linking_is_bound_to_the_session_that_started_it(web: WebApp, db: Database) -> None:
    with db.transaction() as conn:
        ada, bob = make_owner(conn, "ada2"), make_owner(conn, "bob2")
    browser = web.new_browser()
    with db.connection() as conn:
        browser.sign_in(conn, ada)
    back = follow_provider_redirect(start_provider_sign_in(browser, "oidc", "/account/", "/account/link/{}"))
    kept = browser.cookies()["__Host-llm-bus-visit"]
    with db.connection() as conn:
        browser.sign_in(conn, bob)
    browser.flask_client.set_cookie("__Host-llm-bus-visit", kept, domain="bus.example.org", secure=True)
    assert browser.get(back).status_code == 400
    with db.connection() as conn:
        assert conn.fetch_one("SELECT count(*) FROM identity") == (0,)
