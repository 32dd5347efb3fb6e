"""A test of the mail server whose result names the setting to correct.

The workers keep the answers of the mail server from the owners of a notice. The operator, who runs this, sees them.
"""

import os
import smtplib
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from bus.notifications.outbox import OutboxMessage
from cli.exit_codes import CliError
from cli.settings_in_force import find_running_variables
from workers import mail
from workers.settings import WorkerSettings


def send_test_mail(address: str, data: Path | None = None) -> str:
    """Send a test e-mail to an address, and return the host and port that accepted it.

    Raises:
        CliError: no mail server is configured, it cannot be reached, or it refuses; the message says what to correct.
        SettingError: a setting is wrong.
    """
    # No database is needed.
    settings = WorkerSettings.from_env({"DATABASE_URL": "postgresql:///", **os.environ, **find_running_variables(data)})
    if settings.smtp_url is None:
        raise CliError(
            "SMTP_URL is not set, so no e-mail is sent. Set it, as in smtp://user:password@mail.example.org:587."
        )
    server = _name_server(settings.smtp_url)
    message = mail.build_message(OutboxMessage(0, "test", "email", address, {}, datetime.now(UTC), 1, ""), settings)
    try:
        with mail.connect(settings.smtp_url) as connection:
            connection.send_message(message)
    except (OSError, ValueError) as error:
        raise CliError(_explain(error, server, settings.mail_from)) from error
    return server


def _name_server(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (465 if parts.scheme == 'smtps' else 25)}"


def _explain(error: OSError | ValueError, server: str, sender: str) -> str:
    """Return what happened and what to correct; the order of the cases follows the classes from special to general."""
    if isinstance(error, smtplib.SMTPAuthenticationError):
        reply = _reply(error.smtp_code, error.smtp_error)
        return f"{server} refuses the user and password of SMTP_URL: {reply}. Correct them."
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return (
            f"{server} offers no sign-in. Leave user and password out of SMTP_URL, or use its port for submission,"
            " often 587."
        )
    if isinstance(error, smtplib.SMTPSenderRefused):
        reply = _reply(error.smtp_code, error.smtp_error)
        return f"{server} refuses the sender {sender}: {reply}. Set MAIL_FROM to an address that it may send from."
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        address, (code, text) = next(iter(error.recipients.items()))
        return f"{server} refuses the recipient {address}: {_reply(code, text)}."
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{server} refuses the e-mail: {_reply(error.smtp_code, error.smtp_error)}."
    if isinstance(error, smtplib.SMTPServerDisconnected | ssl.SSLError | TimeoutError | ConnectionRefusedError):
        return _explain_connection(error, server)
    if isinstance(error, socket.gaierror):
        return f"The host of {server} is not known: {error.strerror}. Correct it in SMTP_URL."
    return f"The e-mail cannot be sent over {server}: {error}."


def _explain_connection(error: OSError, server: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"The certificate of {server} is not valid: {error.verify_message}. Use the name that the certificate has,"
            " or set SSL_CERT_FILE to the certificates that you trust."
        )
    if isinstance(error, ssl.SSLError):
        return (
            f"{server} does not begin with TLS: {error.reason}. With smtp:// TLS starts after the greeting (STARTTLS)."
        )
    if isinstance(error, ConnectionRefusedError):
        # The workers' own refusal to send a password without encryption has no number.
        return (
            f"{server}: {error}."
            if error.errno is None
            else f"{server} refuses the connection. Correct host and port in SMTP_URL."
        )
    if isinstance(error, TimeoutError):
        return f"{server} does not answer. Correct host and port in SMTP_URL, or allow the connection in the firewall."
    return f"{server} closed the connection without an answer: {error}. A port for TLS, often 465, needs smtps://."


def _reply(code: int, text: bytes | str) -> str:
    words = text.decode(errors="replace") if isinstance(text, bytes) else text
    return f"{code} {' '.join(words.split())}".rstrip(".")
