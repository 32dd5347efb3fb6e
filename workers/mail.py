"""E-mails over SMTP. What comes from tenants goes through the standard library's message policy, which lets no line
break into a header."""

import smtplib
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any
from urllib.parse import unquote, urlsplit

from bus.notifications.outbox import Notice
from workers.delivery import Sent
from workers.settings import WorkerSettings

_TIMEOUT_SECONDS = 10.0
_LONGEST_SUBJECT = 150


def send(notice: Notice, settings: WorkerSettings) -> Sent:
    """Send a notice by e-mail."""
    if settings.smtp_url is None:
        return Sent(False, "no mail server is set (SMTP_URL)", final=True)
    try:
        message = write(notice, settings)
        with _connect(settings.smtp_url) as server:
            server.send_message(message)
    except (smtplib.SMTPAuthenticationError, smtplib.SMTPSenderRefused) as error:
        # That is ours to set right, and what the server says of our account is not for whom the notice is for.
        return Sent(False, f"{error.smtp_code}: the mail server refuses this service")
    except smtplib.SMTPResponseException as error:
        return Sent(False, f"{error.smtp_code} {error.smtp_error!r}", final=error.smtp_code // 100 == 5)
    except smtplib.SMTPRecipientsRefused as error:
        code, said = next(iter(error.recipients.values()))
        return Sent(False, f"{code} {said!r}", final=code // 100 == 5)
    except (smtplib.SMTPException, OSError, ValueError) as error:
        return Sent(False, f"{type(error).__name__}: {error}")
    return Sent(True, "accepted by the mail server")


def write(notice: Notice, settings: WorkerSettings) -> EmailMessage:
    """The e-mail of a notice."""
    subject, text = _WORDS[notice.kind](notice.content)
    message = EmailMessage()
    message["Subject"] = _one_line(subject)[:_LONGEST_SUBJECT]
    message["From"] = settings.mail_from
    message["To"] = notice.target
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(f"notice-{notice.id}", "llm-bus.invalid")
    # So that nobody's out-of-office answers.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(f"{text}\n\n{settings.bus.public_url}/admin\n")
    return message


def _escalation(content: dict[str, Any]) -> tuple[str, str]:
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
        f"Nobody has acknowledged a handoff in project {content['project']}.\n\n"
        f"From: {content['sender']}\nTo: {to}\nAbout: {about}\nDue: {content['ack_due_at']}\n"
        f"Post: {content['post_id']}",
    )


def _low(content: dict[str, Any]) -> tuple[str, str]:
    return (
        f"{content['balance']} credits left",
        f"Your LLM Bus balance has fallen to {content['balance']} credits. Top it up so that your agents go on.",
    )


def _delinquent(content: dict[str, Any]) -> tuple[str, str]:
    return (
        "Your credits are used up",
        f"Your LLM Bus balance is {content['balance']} credits. Your agents go on for now; "
        "unless you top it up they will be refused after the time of grace.",
    )


def _suspended(content: dict[str, Any]) -> tuple[str, str]:
    return (
        "Your agents are refused until you top up",
        f"Your LLM Bus balance is {content['balance']} credits and the time of grace is over. Nothing is lost: "
        "as soon as your balance is above zero, everything works again.",
    )


def _test(content: dict[str, Any]) -> tuple[str, str]:
    return "A test from LLM Bus", "If you read this, notices reach you."


_WORDS: dict[str, Callable[[dict[str, Any]], tuple[str, str]]] = {
    "escalation": _escalation,
    "low_balance": _low,
    "delinquent": _delinquent,
    "suspended": _suspended,
    "test": _test,
}


def _one_line(text: str) -> str:
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
