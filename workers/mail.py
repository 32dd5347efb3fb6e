"""E-mail over SMTP.

Text of tenants passes through the standard library's message policy, which refuses line breaks in headers.
"""

import smtplib
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any
from urllib.parse import unquote, urlsplit

from bus.notifications.outbox import OutboxMessage
from workers.delivery import DeliveryResult
from workers.settings import WorkerSettings

_TIMEOUT_SECONDS = 10.0
_MAX_SUBJECT_LENGTH = 150


def send(notice: OutboxMessage, settings: WorkerSettings) -> DeliveryResult:
    """Send a notice by e-mail."""
    if settings.smtp_url is None:
        return DeliveryResult(False, "no mail server is configured (SMTP_URL)", permanent=True)
    try:
        message = build_message(notice, settings)
        server = _connect(settings.smtp_url)
    except smtplib.SMTPAuthenticationError as error:
        return DeliveryResult(False, f"{error.smtp_code}: the mail server refuses this service", unreachable=True)
    except OSError as error:
        return DeliveryResult(False, f"{type(error).__name__}: {error}", unreachable=True)
    except ValueError as error:
        return DeliveryResult(False, f"{type(error).__name__}: {error}")
    # What follows may depend on this message alone, so it keeps no other from being sent.
    try:
        with server:
            server.send_message(message)
    except smtplib.SMTPSenderRefused as error:
        # The operator has to correct the account; the owner of the notice must not read details of it.
        return DeliveryResult(False, f"{error.smtp_code}: the mail server refuses this service")
    except smtplib.SMTPResponseException as error:
        return DeliveryResult(False, f"{error.smtp_code} {error.smtp_error!r}", permanent=error.smtp_code // 100 == 5)
    except smtplib.SMTPRecipientsRefused as error:
        code, reply = next(iter(error.recipients.values()))
        return DeliveryResult(False, f"{code} {reply!r}", permanent=code // 100 == 5)
    except (OSError, ValueError) as error:
        return DeliveryResult(False, f"{type(error).__name__}: {error}")
    return DeliveryResult(True, "accepted by the mail server")


def build_message(notice: OutboxMessage, settings: WorkerSettings) -> EmailMessage:
    """Build the e-mail of a notice."""
    subject, text = _TEXT_BY_KIND[notice.kind](notice.content)
    message = EmailMessage()
    message["Subject"] = _collapse_whitespace(subject)[:_MAX_SUBJECT_LENGTH]
    message["From"] = settings.mail_from
    message["To"] = notice.target
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(f"notice-{notice.id}", "llm-bus.invalid")
    # Suppresses out-of-office replies.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(f"{text}\n\n{settings.bus.public_url}/admin\n")
    return message


def _escalation_text(content: dict[str, Any]) -> tuple[str, str]:
    to = " and ".join(
        part
        for part in (
            f"lane {content['to_lane']}" if content.get("to_lane") else "",
            content.get("to_actor") or "",
        )
        if part
    )
    about = content.get("subject") or content.get("ref") or f"post {content['post_id']}"
    return (
        f"Overdue handoff in {content['project']}: {about}",
        f"A handoff in project {content['project']} has not been acknowledged in time.\n\n"
        f"From: {content['sender']}\nTo: {to}\nAbout: {about}\nDue: {content['ack_due_at']}\n"
        f"Post: {content['post_id']}",
    )


def _low_balance_text(content: dict[str, Any]) -> tuple[str, str]:
    return (
        f"{content['balance']} credits left",
        f"Your LLM Bus balance has fallen to {content['balance']} credits. Top it up so that your agents can "
        "continue to work.",
    )


def _delinquent_text(content: dict[str, Any]) -> tuple[str, str]:
    return (
        "Your credits are used up",
        f"Your LLM Bus balance is {content['balance']} credits. Your agents continue to work for now; "
        "unless you top up, their calls are refused when the grace period ends.",
    )


def _suspended_text(content: dict[str, Any]) -> tuple[str, str]:
    return (
        "Your agents are refused until you top up",
        f"Your LLM Bus balance is {content['balance']} credits and the grace period is over. Nothing is lost: "
        "as soon as your balance is above zero, everything works again.",
    )


def _test_text(content: dict[str, Any]) -> tuple[str, str]:
    return "A test from LLM Bus", "If you can read this, notices reach you."


_TEXT_BY_KIND: dict[str, Callable[[dict[str, Any]], tuple[str, str]]] = {
    "escalation": _escalation_text,
    "low_balance": _low_balance_text,
    "delinquent": _delinquent_text,
    "suspended": _suspended_text,
    "test": _test_text,
}


def _collapse_whitespace(text: str) -> str:
    return " ".join(text.split())


def _connect(url: str) -> smtplib.SMTP:
    parts = urlsplit(url)
    host = parts.hostname or ""
    context = ssl.create_default_context()
    server: smtplib.SMTP
    if parts.scheme == "smtps":
        server = smtplib.SMTP_SSL(host, parts.port or 465, timeout=_TIMEOUT_SECONDS, context=context)
    else:
        server = smtplib.SMTP(host, parts.port or 25, timeout=_TIMEOUT_SECONDS)
    try:
        server.ehlo()
        if parts.scheme == "smtp" and server.has_extn("starttls"):
            server.starttls(context=context)
            server.ehlo()
        if parts.username:
            server.login(unquote(parts.username), unquote(parts.password or ""))
    except BaseException:
        server.close()
        raise
    return server
