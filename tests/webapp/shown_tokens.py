"""The page that shows a new token once, and whether a token works."""

import re

from werkzeug.test import TestResponse

from bus.db import Database
from bus.errors import NotAuthenticated
from bus.rules.token_format import fingerprint as hashed
from bus.tenancy import participant_queries, tokens
from tests.webapp.web_client import Browser

TOKEN = re.compile(r"lbus_[0-9A-Za-z]{49}")


def works(db: Database, token: str) -> bool:
    """Whether a call with a token is accepted."""
    with db.connection() as conn:
        ctx = tokens.find_caller(conn, hashed(token))
        assert ctx is not None
        try:
            participant_queries.whoami(conn, ctx)
        except NotAuthenticated:
            return False
        return True


def shown_once(browser: Browser, answer: TestResponse) -> str:
    """Follow the redirect to the token page; returns the token, after checking that it is shown only once."""
    assert answer.status_code == 303, answer.text
    assert answer.location.startswith("/admin/cards/")
    head = browser._open("HEAD", answer.location)
    assert head.status_code == 404
    card = browser.get(answer.location)
    assert card.status_code == 200
    assert card.headers["Cache-Control"] == "no-store"
    again = browser.get(answer.location)
    assert again.status_code == 404
    assert "could be viewed once" in again.text
    (token,) = set(TOKEN.findall(card.text))
    assert token not in again.text
    return token
