"""Invites by e-mail, from the outbox to a real SMTP server."""

import re
from collections.abc import Iterator

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from bus.config.settings import Settings
from bus.db import Database
from bus.notifications import invite_mails, outbox
from bus.tenancy import invite_redemption, invites
from bus.tenancy.projects import Project
from tests import servers
from tests.factories import make_project
from tests.workers.smtp_servers import Inbox, running_inbox
from workers.job_runner import execute_job
from workers.jobs import all_jobs
from workers.settings import WorkerSettings


class _Mailbox(Inbox):
    """Refuse the first `refusals` messages for now."""

    refusals = 0

    @property
    def texts(self) -> list[str]:
        return [message.get_content() for _, message in self.messages]

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.refusals:
            self.refusals -= 1
            return "451 come again"
        return await super().handle_DATA(server, session, envelope)


@pytest.fixture
def mailbox() -> Iterator[tuple[_Mailbox, str]]:
    box = _Mailbox()
    with running_inbox(box) as port:
        yield box, f"smtp://127.0.0.1:{port}"


def _send(db: Database, database_url: str, smtp_url: str) -> dict[str, int]:
    settings = WorkerSettings(
        bus=Settings(database_url=servers.application_url(database_url), public_url="https://bus.example"),
        smtp_url=smtp_url,
    )
    with db.transaction() as conn:
        conn.execute("UPDATE notice SET due_at = clock_timestamp() WHERE due_at IS NOT NULL")
    execution = execute_job(all_jobs()["send_notices"], db, settings)
    assert execution.outcome == "ok", execution
    return dict(execution.counts)


def _invite(db: Database) -> tuple[Project, int]:
    with db.transaction() as conn:
        project = make_project(conn)
        invite = invites.create_for_person(
            conn, project.id, "viewer", email="carol@example.net", acting_owner_id=project.owner_id, actor="ada"
        )
        assert invite_mails.queue(conn, project.id, invite.id, giver_id=project.owner_id) == "queued"
    return project, invite.id


def test_the_link_of_the_mail_opens_the_invite(db: Database, database_url: str, mailbox: tuple[_Mailbox, str]) -> None:
    box, url = mailbox
    project, _ = _invite(db)
    # The mail server asks to come again; the next attempt has another code.
    box.refusals = 1
    assert _send(db, database_url, url) == {"not_delivered": 1}
    assert _send(db, database_url, url) == {"delivered": 1}
    (text,) = box.texts
    code = re.search(r"https://bus\.example/join/(inv_\w+)\r\n", text)
    assert code is not None
    with db.connection() as conn:
        assert invite_redemption.get_offer(conn, code[1]).project == project.name
        # Not in any row of outbox and invites, sent or not.
        assert conn.fetch_one("SELECT count(*) FROM notice n WHERE n::text LIKE %s", (f"%{code[1]}%",)) == (0,)


def test_a_revoked_invite_is_given_up_and_blocks_no_other(
    db: Database, database_url: str, mailbox: tuple[_Mailbox, str]
) -> None:
    box, url = mailbox
    project, invite_id = _invite(db)
    _invite(db)
    with db.transaction() as conn:
        invites.revoke(conn, project.id, invite_id, actor="ada")
    assert _send(db, database_url, url) == {"delivered": 1}
    assert len(box.texts) == 1
    with db.connection() as conn:
        (entry,) = outbox.list_log_entries(conn, project.owner_id)
    assert (entry.state, entry.last_result) == ("given up", "the invite is no longer open")
