"""Signing in with OpenID Connect against a real server, and its failure cases."""

import html
import re
from collections.abc import Callable
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from bus.db import Database
from tests.factories import make_owner
from tests.webapp.fake_oidc import CLIENT_ID, FakeOidcProvider, running_provider
from tests.webapp.oauth_flow import (
    assert_nothing_written,
    follow_provider_redirect,
    is_signed_in,
    sign_in,
    sign_up,
    start_provider_sign_in,
)
from tests.webapp.web_client import WebApp


def test_a_visitor_signs_up_and_signs_in_again(web: WebApp, issuer: FakeOidcProvider, db: Database) -> None:
    browser = web.new_browser()
    assert "Example Inc." in browser.get("/sign-in").text
    answer = sign_up(browser)
    assert (answer.status_code, answer.location) == (303, "/admin/")
    page = browser.get("/account/").text
    # The handle was suggested from the login.
    assert "ada-l" in page
    assert "ada@example.org" in page
    again = web.new_browser()
    assert sign_in(again).location == "/admin/"
    assert "ada-l" in again.get("/account/").text
    with db.connection() as conn:
        assert conn.fetch_one("SELECT count(*), count(DISTINCT owner_id) FROM identity") == (1, 1)
        acts = [action for (action,) in conn.fetch_all("SELECT action FROM audit ORDER BY id")]
    assert acts == ["owner.add", "identity.link", "session.open", "session.open"]


def test_signing_in_redirects_to_the_requested_page(web: WebApp) -> None:
    browser = web.new_browser()
    browser.follow_redirects(browser.get("/account/"))
    assert "Sign in" in (browser.current_page.text if browser.current_page else "")
    assert browser.get("/account/").location == "/sign-in?next=/account/"
    browser.get("/sign-in?next=/account/")
    leaving = browser.submit("/sign-in/oidc")
    found = re.search(r'href="(http://127[^"]+)"', leaving.text)
    assert found is not None
    assert browser.get(follow_provider_redirect(html.unescape(found[1]))).location == "/welcome"
    browser.get("/welcome")
    assert browser.submit("").location == "/account/"


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        # Browsers drop tabs and line ends.
        "/\t/evil.example",
        "/\n/evil.example",
    ],
)
def test_signing_in_never_redirects_to_another_site(web: WebApp, target: str) -> None:
    browser = web.new_browser()
    browser.get("/sign-in?" + urlencode({"next": target}))
    sign_up(browser)
    assert browser.get("/sign-in?" + urlencode({"next": target})).location == "/admin/"


def test_a_changed_email_address_identifies_the_same_owner(web: WebApp, issuer: FakeOidcProvider, db: Database) -> None:
    sign_up(web.new_browser())
    issuer.user_claims |= {"email": "countess@example.org"}
    browser = web.new_browser()
    assert sign_in(browser).location == "/admin/"
    page = browser.get("/account/").text
    assert "ada-l" in page
    # The account keeps its address until the owner changes it.
    with db.connection() as conn:
        assert conn.fetch_one("SELECT email FROM owner") == ("ada@example.org",)
        (number,) = conn.fetch_one("SELECT id FROM identity")
    browser.submit(f"/account/ways/{number}/email")
    with db.connection() as conn:
        assert conn.fetch_one("SELECT email FROM owner") == ("countess@example.org",)


def test_the_same_email_address_with_another_subject_gives_no_access(
    web: WebApp, issuer: FakeOidcProvider, db: Database
) -> None:
    sign_up(web.new_browser())
    issuer.user_claims |= {"sub": "another-subject", "email": "ADA@example.org"}
    browser = web.new_browser()
    with assert_nothing_written(db):
        answer = sign_in(browser)
    assert answer.location == "/sign-in"
    assert "There is already an account with your e-mail address" in browser.get("/sign-in").text
    assert not is_signed_in(browser)


def test_an_owner_of_the_command_line_is_not_taken_over_by_email_address(web: WebApp, db: Database) -> None:
    with db.transaction() as conn:
        make_owner(conn, "ada")
    browser = web.new_browser()
    with assert_nothing_written(db):
        assert sign_in(browser).location == "/sign-in"
    assert not is_signed_in(browser)


@pytest.mark.parametrize("verified", [False, None, "false", 0, "yes"])
def test_an_unverified_email_address_cannot_sign_up(
    web: WebApp, issuer: FakeOidcProvider, db: Database, verified: object
) -> None:
    issuer.user_claims["email_verified"] = verified
    browser = web.new_browser()
    with assert_nothing_written(db):
        assert sign_in(browser).location == "/sign-in"
    assert "verified" in browser.get("/sign-in").text
    assert not is_signed_in(browser)


def test_an_owner_signs_in_although_the_address_is_no_longer_verified(web: WebApp, issuer: FakeOidcProvider) -> None:
    sign_up(web.new_browser())
    issuer.user_claims["email_verified"] = False
    assert sign_in(web.new_browser()).location == "/admin/"


def test_the_email_address_is_read_from_userinfo(web: WebApp, issuer: FakeOidcProvider) -> None:
    issuer.userinfo_only_claims = {"email", "email_verified", "preferred_username"}
    browser = web.new_browser()
    sign_up(browser)
    assert "ada@example.org" in browser.get("/account/").text


def test_userinfo_of_another_subject_is_ignored(web: WebApp, issuer: FakeOidcProvider, db: Database) -> None:
    issuer.userinfo_only_claims = {"email", "email_verified"}
    issuer.claim_overrides = {"sub": "mallory"}
    with assert_nothing_written(db):
        assert sign_in(web.new_browser()).location == "/sign-in"


@pytest.mark.parametrize("state", ["", "wrong", None])
def test_a_callback_with_a_wrong_state_is_refused(web: WebApp, db: Database, state: str | None) -> None:
    browser = web.new_browser()
    back = urlsplit(follow_provider_redirect(start_provider_sign_in(browser)))
    answer = {name: values[0] for name, values in parse_qs(back.query).items()} | {"state": state}
    with assert_nothing_written(db):
        page = browser.get(f"{back.path}?{urlencode({k: v for k, v in answer.items() if v is not None})}")
    assert page.status_code == 400
    assert "Start again" in page.text
    # The state is used up: the correct callback is refused as well.
    assert browser.get(f"{back.path}?{back.query}").status_code == 400
    assert not is_signed_in(browser)


def test_a_callback_in_another_browser_is_refused(web: WebApp, db: Database) -> None:
    """Login CSRF: otherwise an attacker could sign a victim in to the attacker's account."""
    back = follow_provider_redirect(start_provider_sign_in(web.new_browser()))
    victim = web.new_browser()
    with assert_nothing_written(db):
        assert victim.get(back).status_code == 400
    start_provider_sign_in(victim)
    assert victim.get(back).status_code == 400
    assert not is_signed_in(victim)


def test_a_callback_works_once(web: WebApp, issuer: FakeOidcProvider) -> None:
    browser = web.new_browser()
    back = follow_provider_redirect(start_provider_sign_in(browser))
    kept = browser.cookies()
    assert browser.get(back).location == "/welcome"
    assert browser.get(back).status_code == 400
    # With the earlier cookie as well: the issuer accepts a code once.
    thief = web.new_browser()
    for name, value in kept.items():
        thief.flask_client.set_cookie(name, value, domain="bus.example.org", secure=True)
    replayed = thief.get(back)
    assert replayed.status_code == 400
    assert "used already" in replayed.text
    assert issuer.request_counts["/token"] == 2


@pytest.mark.parametrize(
    "spoilt",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another-client"},
        {"aud": "another-client", "azp": CLIENT_ID},
        {"aud": [CLIENT_ID, "another"], "azp": "another"},
        {"iss": "https://evil.example"},
        {"exp": 1},
        {"exp": None},
        {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 256},
    ],
    ids=str,
)
def test_an_id_token_with_wrong_claims_is_refused(
    web: WebApp, issuer: FakeOidcProvider, db: Database, spoilt: dict[str, object]
) -> None:
    issuer.claim_overrides = spoilt
    browser = web.new_browser()
    with assert_nothing_written(db):
        assert sign_in(browser).status_code == 400
    assert not is_signed_in(browser)


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_a_forgeable_signature_is_refused(web: WebApp, issuer: FakeOidcProvider, db: Database, algorithm: str) -> None:
    """`none` needs no key; HS256 with the public key as its secret is a known attack."""
    issuer.algorithm = algorithm
    with assert_nothing_written(db):
        assert sign_in(web.new_browser()).status_code == 400


def test_a_signature_of_another_key_is_refused(web: WebApp, issuer: FakeOidcProvider, db: Database) -> None:
    sign_up(web.new_browser())
    issuer.replace_key_and_keep_its_id()
    with assert_nothing_written(db):
        assert sign_in(web.new_browser()).status_code == 400


def test_rotated_keys_of_the_issuer_are_fetched_again(web: WebApp, issuer: FakeOidcProvider) -> None:
    sign_up(web.new_browser())
    issuer.rotate_key()
    assert sign_in(web.new_browser()).location == "/admin/"
    assert sign_in(web.new_browser()).location == "/admin/"
    assert issuer.request_counts["/keys"] == 2
    assert issuer.request_counts["/.well-known/openid-configuration"] == 1


def test_metadata_of_another_issuer_is_refused(web: WebApp, issuer: FakeOidcProvider) -> None:
    issuer.metadata_overrides = {"issuer": "https://evil.example"}
    browser = web.new_browser()
    browser.get("/sign-in")
    assert browser.submit("/sign-in/oidc").status_code == 502


def test_a_callback_of_another_issuer_is_refused(web: WebApp) -> None:
    browser = web.new_browser()
    back = follow_provider_redirect(start_provider_sign_in(browser))
    assert browser.get(re.sub(r"iss=[^&]*", "iss=https%3A%2F%2Fevil.example", back)).status_code == 400
    browser = web.new_browser()
    back = follow_provider_redirect(start_provider_sign_in(browser))
    assert browser.get(re.sub(r"&iss=[^&]*", "", back)).status_code == 400


def test_declining_at_the_provider_is_explained(web: WebApp) -> None:
    browser = web.new_browser()
    address = start_provider_sign_in(browser)
    state = parse_qs(urlsplit(address).query)["state"][0]
    page = browser.get("/sign-in/oidc/callback?" + urlencode({"error": "access_denied", "state": state}))
    assert page.status_code == 400
    assert "You declined to sign in" in page.text


@pytest.mark.parametrize("broken", ["/.well-known/openid-configuration", "/token", "/keys"])
def test_a_failing_provider_is_reported(web: WebApp, issuer: FakeOidcProvider, db: Database, broken: str) -> None:
    issuer.failing_paths = {broken}
    browser = web.new_browser()
    browser.get("/sign-in")
    with assert_nothing_written(db):
        answer = browser.submit("/sign-in/oidc")
        if answer.status_code == 200:
            answer = sign_in(browser)
    assert answer.status_code == 502
    assert "Example Inc." in answer.text
    assert "Try again" in answer.text
    issuer.failing_paths = set()
    assert sign_in(browser).location == "/welcome"


def test_an_unreachable_provider_is_reported(make_web: Callable[..., WebApp]) -> None:
    down = FakeOidcProvider()
    with running_provider(down):
        env = down.env()
    browser = make_web(**env).new_browser()
    browser.get("/sign-in")
    answer = browser.submit("/sign-in/oidc")
    assert answer.status_code == 502
    assert "does not answer" in answer.text


def test_sign_up_can_be_closed_or_restricted(
    make_web: Callable[..., WebApp], issuer: FakeOidcProvider, db: Database
) -> None:
    closed = make_web(**issuer.env(), SIGN_UP="closed")
    with assert_nothing_written(db):
        answer = sign_in(closed.new_browser())
    assert answer.status_code == 403
    assert "not open" in answer.text
    others = make_web(**issuer.env(), SIGN_UP_ALLOW="@example.com, bob@example.org")
    with assert_nothing_written(db):
        assert sign_in(others.new_browser()).status_code == 403
    listed = make_web(**issuer.env(), SIGN_UP_ALLOW="@Example.ORG")
    sign_up(listed.new_browser())
    # Existing accounts still sign in.
    assert sign_in(closed.new_browser()).location == "/admin/"


def test_a_taken_reserved_or_malformed_handle_is_refused(web: WebApp, db: Database) -> None:
    with db.transaction() as conn:
        make_owner(conn, "taken")
    browser = web.new_browser()
    assert sign_in(browser).location == "/welcome"
    for handle, message in (
        ("TAKEN", "That handle is taken"),
        ("admin", "reserved"),
        ("a/b", "Handle must be"),
        ("", "Choose a handle"),
        ("<script>", "Handle must be"),
    ):
        browser.get("/welcome")
        page = browser.submit("", handle=handle)
        assert page.status_code == 422
        assert message in html.unescape(page.text)
    browser.get("/welcome")
    assert browser.submit("", handle=" Ada ").location == "/admin/"
    assert ">ada<" in browser.get("/account/").text


def test_sign_up_requires_a_provider(web: WebApp) -> None:
    assert web.new_browser().get("/welcome").location == "/sign-in"
