"""An authenticating proxy in front: a wrong secret is explained, and an account that came another way is linked."""

from collections.abc import Callable

import pytest

from bus.db import Database
from tests.factories import make_owner
from tests.webapp.web_client import WebApp

_SECRET = "a secret of the proxy"
_HEADERS = {"X-Forwarded-Email": "ada@example.org"}


@pytest.fixture
def proxied(make_web: Callable[..., WebApp]) -> WebApp:
    return make_web(SSO_HEADER="X-Forwarded-Email", SSO_PROXY_SECRET=_SECRET)


@pytest.mark.parametrize("secret", [None, "wrong"])
def test_a_wrong_secret_of_the_proxy_is_shown_and_logged(
    proxied: WebApp, caplog: pytest.LogCaptureFixture, secret: str | None
) -> None:
    headers = _HEADERS | ({} if secret is None else {"X-LLM-Bus-Proxy-Secret": secret})
    page = proxied.new_browser().get("/sign-in", headers=headers)
    assert page.status_code == 200
    assert "SSO_PROXY_SECRET" in page.text
    (record,) = [record for record in caplog.records if record.name == "webapp.auth"]
    assert "compare SSO_PROXY_SECRET" in record.getMessage()
    assert _SECRET not in record.getMessage()


def test_a_visitor_without_the_proxy_sees_no_warning(proxied: WebApp) -> None:
    assert "SSO_PROXY_SECRET" not in proxied.new_browser().get("/sign-in").text


def test_a_person_whose_account_came_another_way_links_it(proxied: WebApp, db: Database) -> None:
    headers = _HEADERS | {"X-LLM-Bus-Proxy-Secret": _SECRET}
    with db.transaction() as conn:
        # Created by the command line, with the address that the proxy sends.
        owner = make_owner(conn, "ada")
    browser = proxied.new_browser()
    page = browser.get("/sign-in", headers=headers)
    assert page.status_code == 200
    assert "then link the company sign-in" in page.text
    with db.connection() as conn:
        browser.sign_in(conn, owner)
    assert "/account/ways/proxy" in browser.get("/account/", headers=headers).text
    token = browser.get_csrf_token()
    answer = browser.post("/account/ways/proxy", data={"csrf_token": token}, headers=headers)
    assert answer.status_code == 303
    again = proxied.new_browser().get("/sign-in", headers=headers)
    assert (again.status_code, again.location) == (303, "/admin/")
