"""Confirmation, digest and refusals at mail servers that require STARTTLS and a password."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bus.config.settings import Settings
from bus.db import Database
from bus.notifications import mail_addresses, outbox
from tests import servers
from tests.certificates import write_certificate
from tests.concurrency import wait_until
from tests.factories import make_owner
from tests.workers.smtp_servers import EXIM_SKIP_REASON, SmtpServer, find_exim, running_aiosmtpd, running_exim
from workers.job_runner import execute_job
from workers.jobs import all_jobs
from workers.settings import WorkerSettings

pytestmark = pytest.mark.exhaustive

_SEND = all_jobs()["send_notices"]
_FORGED = "Look\r\nBcc: victim@example.org\r\nSubject: You have won\r\n\r\nOpen: https://evil.example"
_POST: dict[str, Any] = {
    "project": "demo", "project_id": 9, "post_id": 4, "sender": "ada/bot", "to_lane": "web", "to_actor": None,
    "subject": _FORGED, "ref": _FORGED, "ack_due_at": "2026-01-01T00:00:00+00:00",
}  # fmt: skip


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("mail"))


@pytest.fixture(
    params=[
        "aiosmtpd",
        pytest.param("exim", marks=pytest.mark.skipif(find_exim() is None, reason=EXIM_SKIP_REASON)),
    ]
)
def server(request: pytest.FixtureRequest, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmtpServer]:
    """A server whose certificate the worker trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    running = {"aiosmtpd": running_aiosmtpd, "exim": running_exim}[request.param]
    with running(certificate) as started:
        yield started


def _settings(database_url: str, smtp_url: str) -> WorkerSettings:
    return WorkerSettings(
        bus=Settings(database_url=servers.application_url(database_url), public_url="https://bus.example"),
        smtp_url=smtp_url,
        mail_from="LLM Bus <bus@bus.example>",
    )


def _send(db: Database, settings: WorkerSettings) -> dict[str, int]:
    return execute_job(_SEND, db, settings).counts


def _queue_test(db: Database, address: str) -> int:
    with db.transaction() as conn:
        owner = make_owner(conn)
        outbox.enqueue(conn, "test", owner_id=owner.id, email=address)
    return owner.id


def _entry(db: Database, owner_id: int) -> outbox.LogEntry:
    with db.connection() as conn:
        (entry,) = outbox.list_log_entries(conn, owner_id)
    return entry


def test_an_address_is_confirmed_and_gets_a_digest_that_no_agent_can_forge(
    db: Database, database_url: str, server: SmtpServer
) -> None:
    settings = _settings(database_url, server.url())
    with db.transaction() as conn:
        owner = make_owner(conn)
        assert not mail_addresses.add_to_digest(conn, owner.id, "team@example.org", _POST)
    assert _send(db, settings) == {"delivered": 1}
    wait_until(lambda: len(server.messages()) == 1)
    (confirmation,) = server.messages()
    assert confirmation["subject"] == "LLM Bus: confirm this address"
    link = re.search(r"https://bus\.example/email/confirm/(\S+)", confirmation.get_content())
    assert link is not None
    with db.transaction() as conn:
        address = mail_addresses.find_by_confirmation(conn, link[1])
        assert address is not None
        mail_addresses.confirm(conn, address)
        assert mail_addresses.add_to_digest(conn, owner.id, "team@example.org", _POST)
    assert _send(db, settings) == {"delivered": 1}
    wait_until(lambda: len(server.messages()) == 2)
    digest = server.messages()[1]
    assert digest.get_all("subject") == ["LLM Bus: 1 overdue handoff"]
    assert (digest["from"], digest["to"], digest["bcc"]) == ("LLM Bus <bus@bus.example>", "team@example.org", None)
    assert digest["envelope-to"] == "team@example.org"
    assert digest["list-unsubscribe-post"] == "List-Unsubscribe=One-Click"
    lines = digest.get_content().splitlines()
    assert not any(line.startswith(("Bcc", "Subject", "Open: https://evil")) for line in map(str.strip, lines[1:3]))
    assert [line for line in lines if line.strip().startswith("Open:")] == [
        "  Open: https://bus.example/admin/projects/9/handoffs/4"
    ]


def test_a_wrong_password_is_refused_and_the_mail_waits(db: Database, database_url: str, server: SmtpServer) -> None:
    owner_id = _queue_test(db, "ada@example.org")
    assert _send(db, _settings(database_url, server.url(password="other"))) == {"not_delivered": 1}
    entry = _entry(db, owner_id)
    assert (entry.state, entry.last_result) == ("waiting", "535: the mail server refuses this service")
    with db.transaction() as conn:
        conn.execute("UPDATE notice SET due_at = clock_timestamp()")
        conn.execute("UPDATE circuit_breaker SET open_until = clock_timestamp()")
    assert _send(db, _settings(database_url, server.url())) == {"delivered": 1}


def test_without_an_account_the_server_refuses(db: Database, database_url: str, server: SmtpServer) -> None:
    owner_id = _queue_test(db, "ada@example.org")
    _send(db, _settings(database_url, f"smtp://localhost:{server.port}"))
    assert _entry(db, owner_id).state != "delivered"
    assert server.messages() == []


def test_a_certificate_that_is_not_trusted_gets_no_password(
    db: Database, database_url: str, server: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    owner_id = _queue_test(db, "ada@example.org")
    assert _send(db, _settings(database_url, server.url())) == {"not_delivered": 1}
    entry = _entry(db, owner_id)
    assert entry.state == "waiting"
    assert "certificate verify failed" in str(entry.last_result)


@pytest.mark.parametrize(("address", "state"), [("unknown@example.org", "given up"), ("later@example.org", "waiting")])
def test_a_refusal_of_the_recipient_decides_whether_to_retry(
    db: Database, database_url: str, server: SmtpServer, address: str, state: str
) -> None:
    owner_id = _queue_test(db, address)
    assert _send(db, _settings(database_url, server.url())) == {"not_delivered": 1}
    assert _entry(db, owner_id).state == state
