"""What an OAuth client sends to the authorization server, without a client library."""

import html
import re
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from authlib.oauth2.rfc7636 import create_s256_code_challenge
from werkzeug.test import TestResponse

from bus.db import Database
from bus.tenancy import oauth_clients
from tests.webapp.web_client import BASE_URL, Browser

CLIENT_ID = "https://app.example/oauth/client.json"
REDIRECT_URI = "http://127.0.0.1:49152/callback"
RESOURCE = f"{BASE_URL}/mcp"
VERIFIER = "verifier-" + "x" * 40


def store_client(db: Database, client_id: str = CLIENT_ID, *redirect_uris: str, name: str = "Example App") -> None:
    """Store a copy of the document of a client, so that it is not fetched."""
    uris = redirect_uris or ("http://127.0.0.1/callback", "https://app.example/callback")
    with db.transaction() as conn:
        oauth_clients.store_document(conn, client_id, name, uris, ttl=oauth_clients.REGISTRATION_TTL)


def authorization_path(**changed: str | None) -> str:
    """The address to which a client sends a browser, with some parameters changed or, if None, left out."""
    parameters = {
        "response_type": "code",
        "client_id": CLIENT_ID,
        "redirect_uri": REDIRECT_URI,
        "code_challenge": create_s256_code_challenge(VERIFIER),
        "code_challenge_method": "S256",
        "resource": RESOURCE,
        "state": "s-1",
    } | changed
    return f"/oauth/authorize?{urlencode({name: value for name, value in parameters.items() if value is not None})}"


def read_return_url(page: TestResponse) -> str:
    """The address to which a page sends the browser back."""
    assert page.status_code == 200, page.text
    link = re.search(r'<a class="button main large" href="([^"]+)">', page.text)
    assert link is not None, page.text
    return html.unescape(link[1])


def read_answer(page: TestResponse) -> dict[str, str]:
    """The parameters with which a page sends the browser back."""
    return {name: value for name, (value,) in parse_qs(urlsplit(read_return_url(page)).query).items()}


def consent(browser: Browser, path: str | None = None, **fields: str) -> TestResponse:
    """Open the consent page and submit it."""
    path = path or authorization_path()
    page = browser.get(path)
    assert page.status_code == 200, page.text
    return browser.submit(path, **{"decision": "allow", **fields})


def request_token(browser: Browser, **fields: str | None) -> TestResponse:
    """Send a request to the token endpoint; fields that are None are left out."""
    return browser.post("/oauth/token", data={name: value for name, value in fields.items() if value is not None})


def exchange(browser: Browser, code: str, /, **changed: str | None) -> TestResponse:
    """Exchange a code."""
    fields = {
        "grant_type": "authorization_code",
        "code": code,
        "client_id": CLIENT_ID,
        "redirect_uri": REDIRECT_URI,
        "code_verifier": VERIFIER,
        "resource": RESOURCE,
    } | changed
    return request_token(browser, **fields)


def refresh(browser: Browser, refresh_token: str, /, **changed: str | None) -> TestResponse:
    """Exchange a refresh token."""
    fields = {"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": CLIENT_ID} | changed
    return request_token(browser, **fields)


def connect(browser: Browser, path: str | None = None, **fields: str) -> dict[str, Any]:
    """Consent and exchange the code; return the answer with the tokens."""
    answer = exchange(browser, read_answer(consent(browser, path, **fields))["code"])
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.get_json()
    return tokens
