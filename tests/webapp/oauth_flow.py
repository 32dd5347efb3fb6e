"""The way to a provider and back, as a browser goes it."""

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
    """Press the button of a provider; the address that the browser is sent to."""
    browser.get(page)
    leaving = browser.submit(action.format(slug))
    assert leaving.status_code == 200, leaving.text
    found = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', leaving.text)
    assert found is not None
    return html.unescape(found[1])


def follow_provider_redirect(address: str) -> str:
    """What the provider sends the browser back with: a path of ours."""
    answer = httpx2.get(address)
    assert answer.status_code == 302, answer.text
    back = answer.headers["Location"]
    assert back.startswith(f"{BASE_URL}/sign-in/")
    return back.removeprefix(BASE_URL)


def sign_in(browser: Browser, slug: str = "oidc") -> TestResponse:
    return browser.get(follow_provider_redirect(start_provider_sign_in(browser, slug)))


def sign_up(browser: Browser, slug: str = "oidc", **fields: str) -> TestResponse:
    """All the way to an account."""
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
    # The key of the visitors' cookies is made when the first of them comes.
    assert {name for name in before if before[name] != after[name]} <= {"secret"}
