"""OpenID Connect and OAuth as the web speaks them: client authentication, clocks, keys, userinfo, bounds."""

import base64
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Response, jsonify, redirect
from joserfc.jwk import ECKey, RSAKey

from bus.db import Database
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


@pytest.mark.parametrize(
    "methods",
    [["client_secret_post"], ["private_key_jwt", "client_secret_post"], ["client_secret_post", "client_secret_basic"]],
    ids=str,
)
def test_the_client_authenticates_as_the_issuer_announces(
    web: WebApp, issuer: FakeOidcProvider, methods: list[str]
) -> None:
    issuer.metadata_overrides = {"token_endpoint_auth_methods_supported": methods}
    assert sign_up(web.new_browser()).location == "/admin/"


@pytest.mark.parametrize(
    ("offset", "accepted"), [(-400, True), (-440, False), (100, True), (140, False)], ids=lambda value: str(value)
)
def test_clocks_may_differ_by_two_minutes(
    web: WebApp, issuer: FakeOidcProvider, db: Database, offset: int, accepted: bool
) -> None:
    """An ID token of the issuer lasts 300 seconds."""
    issuer.clock_offset_seconds = offset
    if accepted:
        assert sign_in(web.new_browser()).location == "/welcome"
    else:
        with assert_nothing_written(db):
            assert sign_in(web.new_browser()).status_code == 400


def test_a_key_that_was_replaced_under_its_id_is_fetched_again(web: WebApp, issuer: FakeOidcProvider) -> None:
    sign_up(web.new_browser())
    issuer.replace_key_and_keep_its_id()
    issuer.published_key = issuer.key
    assert sign_in(web.new_browser()).location == "/admin/"
    assert sign_in(web.new_browser()).location == "/admin/"
    assert issuer.request_counts["/keys"] == 2


def test_keys_are_fetched_again_once_per_sign_in(web: WebApp, issuer: FakeOidcProvider) -> None:
    sign_up(web.new_browser())
    issuer.replace_key_and_keep_its_id()
    assert sign_in(web.new_browser()).status_code == 400
    assert issuer.request_counts["/keys"] == 2


def test_keys_that_were_just_fetched_are_not_fetched_again(web: WebApp, issuer: FakeOidcProvider) -> None:
    issuer.replace_key_and_keep_its_id()
    assert sign_in(web.new_browser()).status_code == 400
    assert issuer.request_counts["/keys"] == 1


def test_malformed_keys_are_not_kept(web: WebApp, issuer: FakeOidcProvider) -> None:
    issuer.replies["/keys"] = lambda: jsonify(keys=["no key"])
    assert sign_in(web.new_browser()).status_code == 400
    issuer.replies.clear()
    assert sign_in(web.new_browser()).location == "/welcome"


def test_a_shared_secret_signs_nothing_although_the_issuer_announces_only_that(
    web: WebApp, issuer: FakeOidcProvider, db: Database
) -> None:
    issuer.algorithm, issuer.shared_secret = "HS256", secrets.token_bytes(32)
    issuer.metadata_overrides = {"id_token_signing_alg_values_supported": ["HS256"]}
    secret = base64.urlsafe_b64encode(issuer.shared_secret).rstrip(b"=").decode()
    issuer.replies["/keys"] = lambda: jsonify(keys=[{"kty": "oct", "kid": issuer.key.kid, "k": secret}])
    with assert_nothing_written(db):
        assert sign_in(web.new_browser()).status_code == 400


def test_metadata_and_keys_are_fetched_again_after_a_while(
    web: WebApp, issuer: FakeOidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_up(web.new_browser())
    paths = ("/.well-known/openid-configuration", "/keys")
    assert [issuer.request_counts[path] for path in paths] == [1, 1]
    provider = web.app.extensions["bus.providers"]["oidc"]
    assert 3590 < provider._metadata_expires_at - time.monotonic() <= 3600
    monkeypatch.setattr(provider, "_metadata_expires_at", time.monotonic())
    assert sign_in(web.new_browser()).location == "/admin/"
    assert [issuer.request_counts[path] for path in paths] == [2, 2]


def test_userinfo_is_requested_only_for_what_the_id_token_lacks(web: WebApp, issuer: FakeOidcProvider) -> None:
    sign_up(web.new_browser())
    assert "/userinfo" not in issuer.request_counts


def test_whether_an_address_is_verified_is_read_from_userinfo(web: WebApp, issuer: FakeOidcProvider) -> None:
    issuer.userinfo_only_claims = {"email_verified"}
    browser = web.new_browser()
    sign_up(browser)
    assert "ada@example.org" in browser.get("/account/").text


def test_userinfo_verifies_the_address_that_it_names(web: WebApp, issuer: FakeOidcProvider) -> None:
    issuer.userinfo_only_claims = {"email_verified"}
    issuer.claim_overrides = {"email": "victim@example.org"}
    browser = web.new_browser()
    sign_up(browser)
    page = browser.get("/account/").text
    assert "ada@example.org" in page
    assert "victim@example.org" not in page


@pytest.mark.parametrize(
    "overrides", [{"email": None}, {"email_verified": False}, {"email_verified": None}, {"sub": "mallory"}], ids=str
)
def test_userinfo_that_does_not_verify_the_address_opens_no_account(
    web: WebApp, issuer: FakeOidcProvider, db: Database, overrides: dict[str, Any]
) -> None:
    issuer.userinfo_only_claims = {"email_verified"}
    issuer.userinfo_overrides = overrides
    browser = web.new_browser()
    with assert_nothing_written(db):
        assert sign_in(browser).location == "/sign-in"
    assert "verified" in browser.get("/sign-in").text


@pytest.mark.parametrize("reply", [lambda: ("busy", 503), lambda: jsonify(["no object"])], ids=["error", "list"])
def test_an_owner_signs_in_although_userinfo_fails(
    web: WebApp, issuer: FakeOidcProvider, db: Database, reply: Callable[[], Any]
) -> None:
    sign_up(web.new_browser())
    issuer.claim_overrides = {"email_verified": None}
    issuer.replies["/userinfo"] = reply
    assert sign_in(web.new_browser()).location == "/admin/"
    # An address that is known from nowhere else is not guessed.
    issuer.claim_overrides = {"email": None}
    with assert_nothing_written(db):
        assert sign_in(web.new_browser()).status_code == 502


def test_userinfo_is_requested_with_a_token_of_short_life(web: WebApp, issuer: FakeOidcProvider) -> None:
    issuer.access_token_seconds = 30
    issuer.userinfo_only_claims = {"email", "email_verified"}
    sign_up(web.new_browser())
    # The token is not refreshed.
    assert issuer.request_counts["/token"] == 1


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"])
@pytest.mark.parametrize("address", ["http://10.0.0.7/", "http://id.example.org/", "ftp://id.example.org/", 7])
def test_metadata_with_an_insecure_address_is_refused(
    web: WebApp, issuer: FakeOidcProvider, name: str, address: object
) -> None:
    issuer.metadata_overrides = {name: address}
    browser = web.new_browser()
    browser.get("/sign-in")
    answer = browser.submit("/sign-in/oidc")
    assert answer.status_code == 502
    assert f"has no https address as {name}" in answer.text


def test_an_issuer_without_userinfo_signs_in(web: WebApp, issuer: FakeOidcProvider) -> None:
    issuer.metadata_overrides = {"userinfo_endpoint": None}
    issuer.userinfo_only_claims = {"preferred_username"}
    assert sign_up(web.new_browser(), handle="ada").location == "/admin/"


def test_metadata_sets_no_option_of_the_http_client_or_the_request(web: WebApp, issuer: FakeOidcProvider) -> None:
    issuer.metadata_overrides = {
        "client_id": "another",
        "follow_redirects": True,
        "verify": False,
        "proxy": "http://127.0.0.1:9",
        "scope": "openid admin",
        "prompt": "none",
        "response_type": "token",
        "jwks": {"keys": []},
    }
    browser = web.new_browser()
    sent = parse_qs(urlsplit(start_provider_sign_in(browser)).query)
    assert (sent["scope"], sent["response_type"], "prompt" in sent) == (["openid email profile"], ["code"], False)
    assert sign_up(browser).location == "/admin/"


@pytest.mark.parametrize("path", ["/token", "/keys", "/userinfo"])
def test_redirects_of_a_provider_are_not_followed(web: WebApp, issuer: FakeOidcProvider, path: str) -> None:
    issuer.userinfo_only_claims = {"email"}
    issuer.replies[path] = lambda: redirect(f"{issuer.url}/private", 307)
    assert sign_in(web.new_browser()).status_code == 502
    assert "/private" not in issuer.request_counts


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/keys", "/userinfo"])
def test_an_answer_of_unlimited_length_is_refused(
    make_web: Callable[..., WebApp], issuer: FakeOidcProvider, path: str
) -> None:
    ended = threading.Event()

    def send_forever() -> Iterator[bytes]:
        try:
            while True:
                yield b'{"padding": "' + b"x" * 65536
        finally:
            ended.set()

    issuer.userinfo_only_claims = {"email"}
    issuer.replies[path] = lambda: Response(send_forever(), mimetype="application/json")
    browser = make_web(**issuer.env()).new_browser()
    browser.get("/sign-in")
    answer = browser.submit("/sign-in/oidc") if path.startswith("/.well-known") else sign_in(browser)
    assert answer.status_code == 502
    assert "sent an invalid response" in answer.text
    # The connection was closed.
    assert ended.wait(30)


def test_an_answer_that_trickles_in_is_given_up(make_web: Callable[..., WebApp], issuer: FakeOidcProvider) -> None:
    ended = threading.Event()

    def send_slowly() -> Iterator[bytes]:
        while not ended.wait(0.2):
            yield b" "

    issuer.replies["/token"] = lambda: Response(send_slowly(), mimetype="application/json")
    browser = make_web(**issuer.env() | {"PROVIDER_SECONDS": "1"}).new_browser()
    try:
        answer = sign_in(browser)
    finally:
        ended.set()
    assert answer.status_code == 502
    assert "does not answer" in answer.text


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=str)
def test_two_tabs_sign_in_at_once(web: WebApp, order: tuple[int, int]) -> None:
    sign_up(web.new_browser())
    browser = web.new_browser()
    tabs = [follow_provider_redirect(start_provider_sign_in(browser)) for _ in range(2)]
    for tab in order:
        assert browser.get(tabs[tab]).location == "/admin/"
    assert is_signed_in(browser)


def test_two_tabs_sign_in_with_two_providers(
    make_web: Callable[..., WebApp], issuer: FakeOidcProvider, github: FakeGitHub, db: Database
) -> None:
    browser = make_web(**issuer.env(), **github.env()).new_browser()
    sign_up(browser, "github")
    issuer.user_claims["email"] = "countess@example.org"
    sign_up(browser.web_app.new_browser())
    browser = browser.web_app.new_browser()
    tabs = [follow_provider_redirect(start_provider_sign_in(browser, slug)) for slug in ("oidc", "github")]
    assert [browser.get(tab).location for tab in tabs] == ["/admin/", "/admin/"]
    # The response of one provider is none of the other.
    back = follow_provider_redirect(start_provider_sign_in(browser, "oidc", "/account/", "/account/link/{}"))
    with assert_nothing_written(db):
        assert browser.get(back.replace("/oidc/", "/github/")).status_code == 400


def test_two_tabs_sign_up_at_once(web: WebApp, db: Database) -> None:
    browser = web.new_browser()
    tabs = [follow_provider_redirect(start_provider_sign_in(browser)) for _ in range(2)]
    assert browser.get(tabs[0]).location == "/welcome"
    browser.get("/welcome")
    assert browser.submit("").location == "/admin/"
    assert browser.get(tabs[1]).location == "/admin/"
    with db.connection() as conn:
        assert conn.fetch_one("SELECT count(*) FROM owner") == (1,)


def test_a_browser_keeps_the_newest_sign_ins(web: WebApp) -> None:
    browser = web.new_browser()
    tabs = [follow_provider_redirect(start_provider_sign_in(browser)) for _ in range(8)]
    # Browsers drop a longer cookie.
    assert all(len(f"{name}={value}") < 3000 for name, value in browser.cookies().items())
    for tab in tabs[-4:]:
        assert browser.get(tab).location == "/welcome"
    assert browser.get(tabs[0]).status_code == 400


@pytest.mark.parametrize("key", [RSAKey.generate_key(2048), ECKey.generate_key("P-256")], ids=["RSA", "EC"])
def test_the_client_signs_an_assertion_with_its_key(
    make_web: Callable[..., WebApp], issuer: FakeOidcProvider, key: RSAKey | ECKey
) -> None:
    issuer.client_key = key
    issuer.metadata_overrides = {"token_endpoint_auth_methods_supported": ["private_key_jwt", "tls_client_auth"]}
    env = {name: value for name, value in issuer.env().items() if name != "OIDC_CLIENT_SECRET"}
    web = make_web(**env, OIDC_CLIENT_KEY=key.as_pem(private=True).decode())
    assert sign_up(web.new_browser()).location == "/admin/"
    # A key that the issuer does not know.
    issuer.client_key = RSAKey.generate_key(2048)
    issuer.app.view_functions["token"] = lambda: (jsonify(error="invalid_client"), 401)
    page = sign_in(web.new_browser())
    assert page.status_code == 502
    assert "OIDC_CLIENT_KEY" in page.text


def test_an_issuer_without_a_usable_method_is_explained(web: WebApp, issuer: FakeOidcProvider) -> None:
    issuer.metadata_overrides = {"token_endpoint_auth_methods_supported": ["private_key_jwt"]}
    browser = web.new_browser()
    browser.get("/sign-in")
    page = browser.submit("/sign-in/oidc")
    assert page.status_code == 502
    assert "accepts only private_key_jwt" in page.text
    assert "OIDC_CLIENT_KEY" in page.text


@pytest.mark.parametrize("verified", [None, False], ids=["as Entra", "as authentik"])
def test_addresses_of_a_trusted_issuer_count_as_verified(
    make_web: Callable[..., WebApp], issuer: FakeOidcProvider, db: Database, verified: bool | None
) -> None:
    issuer.claim_overrides = issuer.userinfo_overrides = {"email_verified": verified}
    with assert_nothing_written(db):
        assert sign_in(make_web(**issuer.env()).new_browser()).location == "/sign-in"
    browser = make_web(**issuer.env(), OIDC_TRUST_EMAIL="1").new_browser()
    sign_up(browser)
    assert "ada@example.org" in browser.get("/account/").text


@pytest.mark.parametrize("offset", [-440, 140])
def test_a_difference_of_the_clocks_is_explained(web: WebApp, issuer: FakeOidcProvider, offset: int) -> None:
    issuer.clock_offset_seconds = offset
    page = sign_in(web.new_browser())
    assert page.status_code == 400
    assert "differ by more than two minutes" in page.text


def test_an_authentication_in_the_future_is_explained(web: WebApp, issuer: FakeOidcProvider) -> None:
    issuer.user_claims["auth_time"] = int(time.time()) + 100
    assert sign_in(web.new_browser()).location == "/welcome"
    issuer.user_claims["auth_time"] = int(time.time()) + 200
    assert "differ by more than two minutes" in sign_in(web.new_browser()).text


def test_a_refused_account_leads_to_the_choice_of_another(web: WebApp, issuer: FakeOidcProvider) -> None:
    """Otherwise the provider, where the user is signed in, would name the same account again without asking."""
    issuer.metadata_overrides = {"prompt_values_supported": ["login", "select_account"]}
    sign_up(web.new_browser())
    issuer.user_claims |= {"sub": "another"}
    browser = web.new_browser()
    assert "prompt" not in parse_qs(urlsplit(start_provider_sign_in(browser)).query)
    assert sign_in(browser).location == "/sign-in"
    assert parse_qs(urlsplit(start_provider_sign_in(browser)).query)["prompt"] == ["select_account"]
    # Once.
    assert "prompt" not in parse_qs(urlsplit(start_provider_sign_in(browser)).query)


def test_a_closed_sign_up_leads_to_the_choice_of_another_account(
    make_web: Callable[..., WebApp], issuer: FakeOidcProvider
) -> None:
    browser = make_web(**issuer.env(), SIGN_UP="closed").new_browser()
    assert sign_in(browser).status_code == 403
    assert parse_qs(urlsplit(start_provider_sign_in(browser)).query)["prompt"] == ["login"]


@pytest.mark.parametrize(
    ("announced", "prompt"),
    [(["login"], "login"), (["login", "select_account"], "select_account"), (None, "login")],
    ids=str,
)
def test_the_choice_of_an_account_uses_a_prompt_that_the_issuer_announces(
    make_web: Callable[..., WebApp], issuer: FakeOidcProvider, announced: list[str] | None, prompt: str
) -> None:
    issuer.metadata_overrides = {"prompt_values_supported": announced}
    browser = make_web(**issuer.env(), SIGN_UP="closed").new_browser()
    assert sign_in(browser).status_code == 403
    assert parse_qs(urlsplit(start_provider_sign_in(browser)).query)["prompt"] == [prompt]
