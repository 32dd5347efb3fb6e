"""Signing in with GitHub's addresses, and more than one way into an account."""

from collections.abc import Callable

import pytest

from bus.db import Database
from tests.assertions import fingerprint
from tests.factories import make_owner
from tests.webapp.fake_oidc import GitHub, Issuer
from tests.webapp.oauth_flow import from_provider, is_signed_in, nothing_written, sign_in, sign_up, to_provider
from tests.webapp.web_client import Web


def test_the_addresses_of_github_sign_up_and_in(hub: Web, github: GitHub) -> None:
    browser = hub.browser()
    answer = sign_up(browser, "github")
    assert answer.location == "/admin/"
    page = browser.get("/account/").text
    assert "ada-lovelace" in page
    assert "ada@example.org" in page
    # The number stays when the login and the address change.
    github.user |= {"login": "countess"}
    github.emails = [{"email": "countess@example.org", "primary": True, "verified": True}]
    again = hub.browser()
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
def test_github_needs_a_primary_and_verified_address(hub: Web, github: GitHub, db: Database, emails: object) -> None:
    github.emails = emails
    browser = hub.browser()
    with nothing_written(db):
        assert sign_in(browser, "github").location == "/sign-in"
    assert not is_signed_in(browser)


def test_a_code_of_github_is_good_once(hub: Web) -> None:
    browser = hub.browser()
    back = from_provider(to_provider(browser, "github"))
    kept = browser.cookies()
    assert browser.get(back).location == "/welcome"
    for name, value in kept.items():
        browser.client.set_cookie(name, value, domain="bus.example.org", secure=True)
    assert browser.get(back).status_code == 400


def test_a_second_provider_is_linked_from_within(
    make_web: Callable[..., Web], issuer: Issuer, github: GitHub, db: Database
) -> None:
    web = make_web(**issuer.env(), **github.env())
    browser = web.browser()
    sign_up(browser)
    before = browser.cookies()["__Host-llm-bus"]
    back = from_provider(to_provider(browser, "github", "/account/", "/account/link/{}"))
    assert browser.get(back).location == "/account/#ways"
    # There is a new way in, so the session has a new token and the old one is dead.
    assert browser.cookies()["__Host-llm-bus"] != before
    assert "GitHub is linked" in browser.get("/account/").text
    other = web.browser()
    assert sign_in(other, "github").location == "/admin/"
    assert "ada-l" in other.get("/account/").text
    with db.call() as conn:
        numbers = [number for (number,) in conn.all("SELECT id FROM identity ORDER BY id")]
    browser.get("/account/")
    assert browser.submit(f"/account/ways/{numbers[0]}/unlink").status_code == 303
    # Browsers that may have come by it are signed out, and it lets nobody in.
    assert not is_signed_in(other)
    assert sign_in(web.browser()).location == "/sign-in"
    token = browser.token()
    browser.post(f"/account/ways/{numbers[1]}/unlink", data={"csrf_token": token})
    assert "only way in" in browser.get("/account/").text
    with db.call() as conn:
        assert conn.one("SELECT count(*) FROM identity") == (1,)


def test_an_identity_of_another_owner_is_not_linked(
    make_web: Callable[..., Web], issuer: Issuer, github: GitHub, db: Database
) -> None:
    web = make_web(**issuer.env(), **github.env())
    sign_up(web.browser())
    github.emails = [{"email": "bob@example.org", "primary": True, "verified": True}]
    bob = web.browser()
    sign_up(bob, "github")
    back = from_provider(to_provider(bob, "oidc", "/account/", "/account/link/{}"))
    with db.call() as conn:
        before = fingerprint(conn)["identity"]
    assert bob.get(back).status_code == 303
    assert "belongs to another account" in bob.get("/account/").text
    with db.call() as conn:
        assert fingerprint(conn)["identity"] == before


def test_linking_ends_with_the_session_that_began_it(web: Web, db: Database) -> None:
    with db.write() as conn:
        ada, bob = make_owner(conn, "ada2"), make_owner(conn, "bob2")
    browser = web.browser()
    with db.call() as conn:
        browser.sign_in(conn, ada)
    back = from_provider(to_provider(browser, "oidc", "/account/", "/account/link/{}"))
    kept = browser.cookies()["__Host-llm-bus-visit"]
    with db.call() as conn:
        browser.sign_in(conn, bob)
    browser.client.set_cookie("__Host-llm-bus-visit", kept, domain="bus.example.org", secure=True)
    assert browser.get(back).status_code == 400
    with db.call() as conn:
        assert conn.one("SELECT count(*) FROM identity") == (0,)
