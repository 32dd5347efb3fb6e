"""E-mails as a real SMTP server receives them."""

import email
import email.policy
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from bus.config.settings import Settings
from bus.notifications.outbox import OutboxMessage
from tests.servers import free_port
from workers import mail
from workers.settings import WorkerSettings


class Inbox:
    """Keep received messages; refuse `unknown@` permanently and `later@` temporarily."""

    def __init__(self) -> None:
        self.messages: list[tuple[list[str], email.message.EmailMessage]] = []

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
        if address.startswith("unknown@"):
            return "550 no such mailbox"
        if address.startswith("later@"):
            return "451 come again"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        message = email.message_from_bytes(envelope.original_content or b"", policy=email.policy.default)
        assert isinstance(message, email.message.EmailMessage)
        self.messages.append((list(envelope.rcpt_tos), message))
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
        bus=Settings(database_url="postgresql://x", public_url="https://bus.example"),
        smtp_url=url,
        mail_from="LLM Bus <bus@bus.example>",
    )


def _notice(kind: str = "low_balance", target: str = "ada@example.org", **content: Any) -> OutboxMessage:
    return OutboxMessage(3, kind, "email", target, {"balance": 9, **content}, datetime.now(UTC), 1, "")


_ESCALATION: dict[str, Any] = {
    "project": "demo", "post_id": 4, "sender": "ada/bot", "to_lane": "web", "to_actor": None, "subject": "Look at this",
    "ref": "PR 1", "ack_due_at": "2026-01-01T00:00:00+00:00",
}  # fmt: skip


def test_an_overdue_handoff_is_sent_by_e_mail(server: tuple[Inbox, str]) -> None:
    inbox, url = server
    result = mail.send(_notice("escalation", **_ESCALATION), _settings(url))
    assert result.delivered, result
    ((to, message),) = inbox.messages
    assert to == ["ada@example.org"]
    assert message["subject"] == "Overdue handoff in demo: Look at this"
    assert message["from"] == "LLM Bus <bus@bus.example>"
    body = message.get_content()
    assert "From: ada/bot\r\nTo: lane web" in body
    assert "https://bus.example/admin" in body


@pytest.mark.parametrize("kind", ["low_balance", "delinquent", "suspended", "test"])
def test_every_kind_of_notice_has_a_text(server: tuple[Inbox, str], kind: str) -> None:
    inbox, url = server
    assert mail.send(_notice(kind), _settings(url)).delivered
    assert inbox.messages[0][1]["subject"]


@pytest.mark.parametrize("bad", ["x\r\nBcc: victim@example.org", "x\nSubject: other", "x\r\n\r\nbody"])
def test_text_of_a_tenant_cannot_add_a_header(server: tuple[Inbox, str], bad: str) -> None:
    inbox, url = server
    result = mail.send(_notice("escalation", **{**_ESCALATION, "subject": bad, "project": bad}), _settings(url))
    assert result.delivered
    ((to, message),) = inbox.messages
    assert to == ["ada@example.org"]
    assert message["bcc"] is None
    assert len(message.get_all("subject", [])) == 1
    # Nothing is sent to an address with a line break.
    inbox.messages.clear()
    refused = mail.send(_notice(target="ada@example.org\r\nBcc: victim@example.org"), _settings(url))
    assert not refused.delivered
    assert inbox.messages == []


@pytest.mark.parametrize(("target", "permanent"), [("unknown@example.org", True), ("later@example.org", False)])
def test_the_code_of_a_refusal_decides_whether_to_retry(
    server: tuple[Inbox, str], target: str, permanent: bool
) -> None:
    result = mail.send(_notice(target=target), _settings(server[1]))
    assert (result.delivered, result.permanent) == (False, permanent)
    assert result.detail[:3] in ("550", "451")


def test_without_a_mail_server_the_notice_is_given_up() -> None:
    result = mail.send(_notice(), _settings(None))
    assert (result.delivered, result.permanent) == (False, True)
    assert "SMTP_URL" in result.detail


def test_an_unreachable_mail_server_is_retried() -> None:
    result = mail.send(_notice(), _settings(f"smtp://127.0.0.1:{free_port()}"))
    assert (result.delivered, result.permanent) == (False, False)


def test_a_misconfigured_account_is_retried_and_its_details_stay_hidden(server: tuple[Inbox, str]) -> None:
    """The operator can correct a password or sender; the owner of the notice must not read the server's answer."""
    _, url = server
    refused = mail.send(_notice(), _settings(url.replace("user:", "stranger:")))
    assert (refused.delivered, refused.permanent) == (False, False)
    assert refused.detail == "535: the mail server refuses this service"
    refused = mail.send(_notice(), _settings(url).model_copy(update={"mail_from": "refused@bus.example"}))
    assert (refused.delivered, refused.permanent) == (False, False)
    assert refused.detail == "550: the mail server refuses this service"
