"""E-mail over SMTP; the texts are in `mail_texts`."""

import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from urllib.parse import unquote, urlsplit

from bus.notifications.outbox import OutboxMessage
from workers import mail_texts
from workers.delivery import DeliveryResult
from workers.settings import WorkerSettings

_TIMEOUT_SECONDS = 10.0
_LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")


def send(notice: OutboxMessage, settings: WorkerSettings) -> DeliveryResult:
    """Send a notice by e-mail."""
    if settings.smtp_url is None:
        return DeliveryResult(False, "no mail server is configured (SMTP_URL)", permanent=True)
    try:
        message = build_message(notice, settings)
        server = connect(settings.smtp_url)
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
    subject, text = mail_texts.compose(notice, settings)
    message = EmailMessage()
    message["Subject"] = subject
    message["From"] = settings.mail_from
    message["To"] = notice.target
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(f"notice-{notice.id}", "llm-bus.invalid")
    # Suppresses out-of-office replies.
    message["Auto-Submitted"] = "auto-generated"
    unsubscribe_url = mail_texts.unsubscribe_url(notice, settings)
    if unsubscribe_url is not None:
        message["List-Unsubscribe"] = f"<{unsubscribe_url}>"
        # One click in the mail program (RFC 8058).
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message.set_content(f"{text}\n")
    return message


def connect(url: str) -> smtplib.SMTP:
    """Connect and sign in to the mail server of an SMTP_URL.

    Raises:
        OSError: it cannot be reached, refuses the sign-in (`smtplib.SMTPException`), or offers no encryption for a
            password (`ConnectionRefusedError` without a number).
    """
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
        elif parts.scheme == "smtp" and parts.username and host not in _LOOPBACK_HOSTS:
            # An attacker on the network could remove the offer and read the password.
            raise ConnectionRefusedError("the mail server offers no STARTTLS, so it gets no password; use smtps://")
        if parts.username:
            server.login(unquote(parts.username), unquote(parts.password or ""))
    except BaseException:
        server.close()
        raise
    return server
