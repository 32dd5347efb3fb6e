"""Each way in which a sign-in with a provider fails has its own sentence."""

import html
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import jsonify, redirect

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
from webapp.oauth_client import SignInAttempts


def test_a_reloaded_callback_is_explained(web: WebApp) -> None:
    sign_up(web.new_browser())
    browser = web.new_browser()
    back = follow_provider_redirect(start_provider_sign_in(browser))
    assert browser.get(back).location == "/admin/"
    for _ in range(2):
        page = browser.get(back)
        assert page.status_code == 400
        assert "That sign-in is already over" in page.text
    assert is_signed_in(browser)


def test_a_reloaded_callback_ends_no_sign_in_of_another_tab(web: WebApp) -> None:
    sign_up(web.new_browser())
    browser = web.new_browser()
    first, second = [follow_provider_redirect(start_provider_sign_in(browser)) for _ in range(2)]
    assert browser.get(first).location == "/admin/"
    assert browser.get(first).status_code == 400
    assert browser.get(second).location == "/admin/"


def test_a_callback_that_failed_is_not_tried_again(web: WebApp, issuer: FakeOidcProvider) -> None:
    browser = web.new_browser()
    back = follow_provider_redirect(start_provider_sign_in(browser))
    issuer.failing_paths = {"/token"}
    assert browser.get(back).status_code == 502
    issuer.failing_paths = set()
    assert "That sign-in is already over" in browser.get(back).text
    assert issuer.request_counts["/token"] == 1


def test_a_callback_without_a_sign_in_is_explained(web: WebApp) -> None:
    page = web.new_browser().get("/sign-in/oidc/callback?code=a&state=b")
    assert page.status_code == 400
    assert "No sign-in is in progress in this browser" in page.text


def test_a_late_callback_is_explained(web: WebApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SignInAttempts, "expires_in", -1)
    page = sign_in(web.new_browser())
    assert page.status_code == 400
    assert "That took too long" in page.text


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        ("access_denied", 400, "You declined to sign in with Example Inc."),
        ("temporarily_unavailable", 502, "Example Inc. cannot sign you in at the moment"),
        ("server_error", 502, "Example Inc. cannot sign you in at the moment"),
        ("unauthorized_client", 502, "does not accept the client id and secret"),
        ("invalid_scope", 400, "Example Inc. did not sign you in"),
        ("<script>", 400, "Example Inc. did not sign you in"),
    ],
)
def test_an_error_of_the_authorization_endpoint_is_explained(
    web: WebApp, issuer: FakeOidcProvider, db: Database, error: str, status: int, sentence: str
) -> None:
    browser = web.new_browser()
    address = follow_provider_redirect(start_provider_sign_in(browser))
    state = address.partition("state=")[2].partition("&")[0]
    with assert_nothing_written(db):
        page = browser.get("/sign-in/oidc/callback?" + urlencode({"error": error, "state": state, "iss": issuer.url}))
    assert page.status_code == status
    assert sentence in page.text
    assert "<script>" not in page.text
    assert "/token" not in issuer.request_counts


def test_a_wrong_secret_is_explained(make_web: Callable[..., WebApp], issuer: FakeOidcProvider, db: Database) -> None:
    with assert_nothing_written(db):
        page = sign_in(make_web(**issuer.env() | {"OIDC_CLIENT_SECRET": "wrong"}).new_browser())
    assert page.status_code == 502
    assert "Example Inc. does not accept the client id and secret of this server" in page.text
    assert "OIDC_CLIENT_SECRET" in page.text


def test_a_wrong_secret_is_explained_although_the_issuer_sends_no_json(web: WebApp, issuer: FakeOidcProvider) -> None:
    issuer.replies["/token"] = lambda: ("Unauthorized", 401)
    page = sign_in(web.new_browser())
    assert page.status_code == 502
    assert "does not accept the client id and secret" in page.text


def test_a_wrong_secret_of_github_is_explained(make_web: Callable[..., WebApp], github: FakeGitHub) -> None:
    page = sign_in(make_web(**github.env() | {"GITHUB_CLIENT_SECRET": "wrong"}).new_browser(), "github")
    assert page.status_code == 502
    assert "GitHub does not accept the client id and secret of this server" in page.text
    assert "GITHUB_CLIENT_SECRET" in page.text


@pytest.mark.parametrize("answer", [{}, {"access_token": 7}, []], ids=str)
def test_an_answer_of_github_without_a_token_is_explained(
    github_web: WebApp, github: FakeGitHub, answer: object
) -> None:
    github.app.view_functions["token"] = lambda: jsonify(answer)
    page = sign_in(github_web.new_browser(), "github")
    assert page.status_code == 502
    assert "GitHub sent an invalid response" in page.text


@pytest.mark.parametrize(
    "reply",
    [
        lambda: ("Not found", 404),
        lambda: "<!doctype html><title>Sign in</title>",
        lambda: redirect("/login"),
        lambda: "[]",
    ],
    ids=["not found", "page", "redirect", "list"],
)
def test_a_missing_discovery_document_is_explained(
    web: WebApp, issuer: FakeOidcProvider, reply: Callable[[], Any]
) -> None:
    issuer.replies["/.well-known/openid-configuration"] = reply
    browser = web.new_browser()
    browser.get("/sign-in")
    page = browser.submit("/sign-in/oidc")
    assert page.status_code == 502
    sentence = f"There is no discovery document of Example Inc. at {issuer.url}/.well-known/openid-configuration"
    assert sentence in html.unescape(page.text)
    assert "OIDC_ISSUER" in page.text
    assert "/login" not in issuer.request_counts
    # It is requested again by the next sign-in.
    issuer.replies.clear()
    assert sign_in(browser).location == "/welcome"


def test_a_used_code_is_explained(web: WebApp, issuer: FakeOidcProvider) -> None:
    browser = web.new_browser()
    back = follow_provider_redirect(start_provider_sign_in(browser))
    issuer.pending_codes.clear()
    page = browser.get(back)
    assert page.status_code == 400
    assert "rejected that response; it may have been used already" in page.text
