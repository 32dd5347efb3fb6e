"""The redirects to a provider and back, as a browser follows them."""

import html
import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from werkzeug.test import TestResponse

from bus.db import Database
from tests.assertions import database_checksum
from tests.webapp.web_client import BASE_URL, Browser


def start_provider_sign_in(
    browser: Browser, slug: str = "oidc", page: str = "/sign-in", action: str = "/sign-in/{}"
) -> str:
    """Submit the form of a provider; returns the address to which the browser is redirected."""
    browser.get(page)
    leaving = browser.submit(action.format(slug))
    assert leaving.status_code == 200, leaving.text
    refresh = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', leaving.text)
    assert refresh is not None
    return html.unescape(refresh[1])


def follow_provider_redirect(address: str) -> str:
    """Request the provider's address; returns the callback path to which it redirects."""
    answer = httpx2.get(address)
    assert answer.status_code == 302, answer.text
    back = answer.headers["Location"]
    assert back.startswith(f"{BASE_URL}/sign-in/")
    return back.removeprefix(BASE_URL)


def sign_in(browser: Browser, slug: str = "oidc") -> TestResponse:
    return browser.get(follow_provider_redirect(start_provider_sign_in(browser, slug)))


def sign_up(browser: Browser, slug: str = "oidc", **fields: str) -> TestResponse:
    """Sign up with a provider."""
    answer = sign_in(browser, slug)
    assert (answer.status_code, answer.location) == (303, "/welcome"), answer.text
    browser.get("/welcome")
    return browser.submit("", **fields)


def is_signed_in(browser: Browser) -> bool:
    return browser.get("/account/").status_code == 200


@contextmanager
def assert_nothing_written(db: Database) -> Iterator[None]:
    with db.connection() as conn:
        before = database_checksum(conn)
    yield
    with db.connection() as conn:
        after = database_checksum(conn)
    # The key of the visitors' cookie is created at the first request.
    assert {name for name in before if before[name] != after[name]} <= {"secret"}
