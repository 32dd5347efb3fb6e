"""The mailed links, and the state of an address on the settings page."""

import pytest

from bus.db import Database
from bus.notifications import mail_addresses
from tests.webapp.sample_data import SampleData
from tests.webapp.web_client import Browser, WebApp

_EMAIL = "oncall@example.net"


@pytest.fixture
def tokens(db: Database, sample: SampleData) -> tuple[str, str]:
    """The confirmation link and the unsubscribe link of an address that was just entered."""
    with db.transaction() as conn:
        mail_addresses.request_confirmation(conn, sample.owner.id, _EMAIL, actor="cli")
        return conn.fetch_one("SELECT content->>'confirm_token', content->>'unsubscribe_token' FROM notice")


def _state(db: Database, sample: SampleData) -> str:
    with db.connection() as conn:
        address = mail_addresses.find(conn, sample.owner.id, _EMAIL)
    assert address is not None
    return address.state


def test_only_the_button_confirms(site: WebApp, db: Database, sample: SampleData, tokens: tuple[str, str]) -> None:
    stranger, path = site.new_browser(), f"/email/confirm/{tokens[0]}"
    # A link preview or a filter of the mail server.
    assert stranger.get(path).status_code == 200
    assert _state(db, sample) == "requested"
    answer = stranger.submit(path)
    assert "Address confirmed" in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert _state(db, sample) == "confirmed"


def test_one_click_unsubscribes_without_cookies(
    site: WebApp, db: Database, sample: SampleData, tokens: tuple[str, str]
) -> None:
    """As mail programs send it (RFC 8058)."""
    path = f"/email/unsubscribe/{tokens[1]}"
    stranger = site.new_browser()
    assert "Unsubscribe address" in stranger.get(path).text
    assert _state(db, sample) == "requested"
    answer = site.new_browser().post(path, data={"List-Unsubscribe": "One-Click"})
    assert answer.status_code == 200
    assert _state(db, sample) == "unsubscribed"


@pytest.mark.parametrize("path", ["/email/confirm/", "/email/unsubscribe/"])
@pytest.mark.parametrize("token", ["x", "1-0-aaaaaaaaaaaaaaaaaaaaaa", "0", "%0a"])
def test_an_invalid_link_is_explained(site: WebApp, path: str, token: str) -> None:
    answer = site.new_browser().get(path + token)
    assert answer.status_code == 404


def test_entering_an_address_mails_a_confirmation_and_shows_its_state(
    ada: Browser, db: Database, sample: SampleData
) -> None:
    settings = f"/admin/projects/{sample.full_project.id}/settings/"
    ada.get(settings)
    assert ada.submit(settings, escalation_email=_EMAIL).status_code == 303
    page = ada.get(settings).text
    assert f"Confirmation link sent to {_EMAIL}" in page
    assert "not confirmed" in page
    ada.submit(f"{settings}email/confirmation")
    assert "within the last hour" in ada.get(settings).text
    with db.transaction() as conn:
        assert conn.fetch_one("SELECT count(*) FROM notice WHERE kind = 'confirm_address'") == (1,)
        address = mail_addresses.find(conn, sample.owner.id, _EMAIL)
        assert address is not None
        mail_addresses.confirm(conn, address)
    page = ada.get(settings).text
    assert "receives overdue handoffs" in page
    assert "Send confirmation link" not in page
