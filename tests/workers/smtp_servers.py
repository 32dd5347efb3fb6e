"""Mail servers: aiosmtpd, and exim where it is installed, which both can require STARTTLS and a password.

All refuse `unknown@` for good and `later@` for now.
"""

import contextlib
import email
import email.policy
import mailbox
import os
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from tests.concurrency import wait_until
from tests.servers import free_port
from tests.webapp.live_server import is_listening

USER, PASSWORD = "user", "p@ss"
EXIM_SKIP_REASON = "exim is not installed (on Debian: apt-get install exim4-daemon-light)."
_EXIM_CONFIGURATION = """
primary_hostname = localhost
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
spool_directory = {folder}/spool
log_file_path = {folder}/log-%s
pid_file_path = {folder}/pid
keep_environment =
host_lookup =
rfc1413_query_timeout = 0s
tls_advertise_hosts = *
tls_certificate = {certificate}
# The password is never asked for without encryption.
auth_advertise_hosts = ${{if eq {{$tls_in_cipher}}{{}}{{}}{{*}}}}
acl_smtp_rcpt = recipient
acl_smtp_data = accept
deliver_drop_privilege
begin acl
recipient:
  require message = authentication required
          authenticated = *
  deny    local_parts = unknown
          message = no such mailbox
  defer   local_parts = later
  accept
begin routers
all:
  driver = accept
  transport = inbox
begin transports
inbox:
  driver = appendfile
  file = {folder}/inbox
  envelope_to_add
  user = {user}
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{{name}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
"""


@dataclass(frozen=True)
class SmtpServer:
    """A running server.

    Attributes:
        port: on localhost.
        messages: returns what was delivered so far; the header Envelope-To is that of the delivery.
    """

    port: int
    messages: Callable[[], list[EmailMessage]]

    def url(self, user: str = USER, password: str = "p%40ss") -> str:
        """An SMTP_URL with an account; that of the server by default."""
        return f"smtp://{user}:{password}@localhost:{self.port}"


def find_exim() -> str | None:
    """Return the path of exim, or None."""
    path = "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin"
    return shutil.which("exim4", path=path) or shutil.which("exim", path=path)


@contextmanager
def running_exim(certificate: Path) -> Iterator[SmtpServer]:
    """Run exim without any right beyond its folder."""
    # The temporary folders of a test are closed to other users.
    with tempfile.TemporaryDirectory(prefix="exim-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield from _run_exim(Path(folder), certificate)


def _run_exim(folder: Path, certificate: Path) -> Iterator[SmtpServer]:
    program = find_exim()
    assert program is not None
    port = free_port()
    # Started by root with a configuration that is not the system's, it gives up its rights.
    user = "Debian-exim" if os.geteuid() == 0 else str(os.geteuid())
    (folder / "spool").mkdir()
    for path in (folder, folder / "spool"):
        path.chmod(0o777)
    certificate = Path(shutil.copyfile(certificate, folder / "server.pem"))
    configuration = folder / "exim.conf"
    configuration.write_text(
        _EXIM_CONFIGURATION.format(
            folder=folder, port=port, certificate=certificate, user=user, name=USER, password=PASSWORD
        )
    )

    def read() -> list[EmailMessage]:
        if not (folder / "inbox").exists():
            return []
        with contextlib.closing(mailbox.mbox(folder / "inbox")) as box:
            return [_parse(message.as_bytes()) for message in box]

    with subprocess.Popen(
        [program, "-C", str(configuration), "-bdf"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            wait_until(lambda: is_listening(port) or process.poll() is not None)
            assert process.poll() is None, process.communicate()[0]
            yield SmtpServer(port, read)
        finally:
            process.terminate()


class Inbox:
    """Keep received messages with their recipients; refuse `unknown@` permanently and `later@` temporarily."""

    def __init__(self) -> None:
        self.messages: list[tuple[list[str], EmailMessage]] = []

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
        recipients = list(envelope.rcpt_tos)
        content = f"Envelope-To: {', '.join(recipients)}\r\n".encode() + (envelope.original_content or b"")
        self.messages.append((recipients, _parse(content)))
        return "250 kept"


def accept_user(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
    """Accept the account of the server with any password."""
    return AuthResult(success=data.login == USER.encode(), handled=False)


def _accept_password(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=(data.login, data.password) == (USER.encode(), PASSWORD.encode()), handled=False)


@contextmanager
def running_inbox(
    inbox: Inbox, host: str = "127.0.0.1", *, authenticator: Callable[..., AuthResult] = accept_user, **options: Any
) -> Iterator[int]:
    """Run aiosmtpd in a thread, without encryption unless `options` ask for it; return its port."""
    options = {"auth_require_tls": False} | options
    controller = Controller(inbox, hostname=host, port=free_port(), authenticator=authenticator, **options)
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


@contextmanager
def running_aiosmtpd(certificate: Path) -> Iterator[SmtpServer]:
    """Run aiosmtpd with STARTTLS and a password."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    inbox = Inbox()
    with running_inbox(
        inbox,
        authenticator=_accept_password,
        tls_context=context,
        require_starttls=True,
        auth_required=True,
        auth_require_tls=True,
    ) as port:
        yield SmtpServer(port, lambda: [message for _, message in inbox.messages])


def _parse(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message
