"""E-mails, as a real SMTP server receives them."""

import email
import email.policy
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from bus.config.settings import Settings
from bus.notifications.outbox import Notice
from tests.servers import free_port
from workers import mail
from workers.settings import WorkerSettings


class Inbox:
    """Keeps what it is sent; refuses `nobody`, and for now `later`."""

    def __init__(self) -> None:
        self.got: list[tuple[list[str], email.message.EmailMessage]] = []

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("refused@"):
            return "550 no such sender"
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("nobody@"):
            return "550 no such mailbox"
        if address.startswith("later@"):
            return "451 come again"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        message = email.message_from_bytes(envelope.original_content or b"", policy=email.policy.default)
        assert isinstance(message, email.message.EmailMessage)
        self.got.append((list(envelope.rcpt_tos), message))
        return "250 kept"


@pytest.fixture
def server() -> Iterator[tuple[Inbox, str]]:
    inbox = Inbox()

    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=data.login == b"user", handled=False)

    controller = Controller(
        inbox,
        hostname="127.0.0.1",
        port=free_port(),
        authenticator=authenticate,
        auth_require_tls=False,
    )
    controller.start()
    yield inbox, f"smtp://user:p%40ss@127.0.0.1:{controller.port}"
    controller.stop()


def _settings(url: str | None) -> WorkerSettings:
    return WorkerSettings(
        bus=Settings("postgresql://x", public_url="https://bus.example"),
        smtp_url=url,
        mail_from="LLM Bus <bus@bus.example>",
    )


def _notice(kind: str = "low_balance", target: str = "ada@example.org", **content: Any) -> Notice:
    return Notice(3, kind, "email", target, {"balance": 9, **content}, datetime.now(UTC), 1, "")


_ESCALATION = {
    "project": "demo", "post_id": 4, "sender": "ada/bot", "to_lane": "web", "to_actor": None, "subject": "Look at this",
    "ref": "PR 1", "ack_due_at": "2026-01-01T00:00:00+00:00",
}  # fmt: skip


def test_an_overdue_handoff_arrives_as_a_letter(server: tuple[Inbox, str]) -> None:
    inbox, url = server
    sent = mail.send(_notice("escalation", **_ESCALATION), _settings(url))
    assert sent.delivered, sent
    ((to, message),) = inbox.got
    assert to == ["ada@example.org"]
    assert message["subject"] == "Overdue handoff in demo: Look at this"
    assert message["from"] == "LLM Bus <bus@bus.example>"
    body = message.get_content()
    assert "From: ada/bot\r\nTo: lane web" in body
    assert "https://bus.example/admin" in body


@pytest.mark.parametrize("kind", ["low_balance", "delinquent", "suspended", "test"])
def test_every_kind_of_notice_has_its_words(server: tuple[Inbox, str], kind: str) -> None:
    inbox, url = server
    assert mail.send(_notice(kind), _settings(url)).delivered
    assert inbox.got[0][1]["subject"]


@pytest.mark.parametrize("bad", ["x\r\nBcc: victim@example.org", "x\nSubject: other", "x\r\n\r\nbody"])
def test_nothing_that_a_tenant_writes_becomes_a_header(server: tuple[Inbox, str], bad: str) -> None:
    inbox, url = server
    sent = mail.send(_notice("escalation", **{**_ESCALATION, "subject": bad, "project": bad}), _settings(url))
    assert sent.delivered
    ((to, message),) = inbox.got
    assert to == ["ada@example.org"]
    assert message["bcc"] is None
    assert len(message.get_all("subject", [])) == 1
    # An address with a line break goes nowhere.
    inbox.got.clear()
    refused = mail.send(_notice(target="ada@example.org\r\nBcc: victim@example.org"), _settings(url))
    assert not refused.delivered
    assert inbox.got == []


@pytest.mark.parametrize(("target", "final"), [("nobody@example.org", True), ("later@example.org", False)])
def test_a_refusal_says_whether_to_try_again(server: tuple[Inbox, str], target: str, final: bool) -> None:
    sent = mail.send(_notice(target=target), _settings(server[1]))
    assert (sent.delivered, sent.permanent) == (False, final)
    assert sent.detail[:3] in ("550", "451")


def test_without_a_server_nothing_is_tried() -> None:
    sent = mail.send(_notice(), _settings(None))
    assert (sent.delivered, sent.permanent) == (False, True)
    assert "SMTP_URL" in sent.detail


def test_a_server_that_is_away_is_tried_again() -> None:
    sent = mail.send(_notice(), replace(_settings(f"smtp://127.0.0.1:{free_port()}")))
    assert (sent.delivered, sent.permanent) == (False, False)


def test_what_is_ours_to_set_right_gives_nothing_up(server: tuple[Inbox, str]) -> None:
    """A wrong password or sender is set right some day, and the notice goes then; its owner reads nothing of it."""
    _, url = server
    refused = mail.send(_notice(), _settings(url.replace("user:", "stranger:")))
    assert (refused.delivered, refused.permanent) == (False, False)
    assert refused.detail == "535: the mail server refuses this service"
    refused = mail.send(_notice(), replace(_settings(url), mail_from="refused@bus.example"))
    assert (refused.delivered, refused.permanent) == (False, False)
    assert refused.detail == "550: the mail server refuses this service"
