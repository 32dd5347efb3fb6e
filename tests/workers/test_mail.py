"""E-mails as a real SMTP server receives them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiosmtpd.smtp import AuthResult

from bus.config.settings import Settings
from bus.notifications.outbox import OutboxMessage
from tests.servers import free_port
from tests.workers.smtp_servers import Inbox, running_inbox
from workers import mail
from workers.settings import WorkerSettings


@pytest.fixture
def server() -> Iterator[tuple[Inbox, str]]:
    inbox = Inbox()
    with running_inbox(inbox) as port:
        yield inbox, f"smtp://user:p%40ss@127.0.0.1:{port}"


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
    "ref": "PR 1", "ack_due_at": "2026-01-01T00:00:00+00:00", "project_id": 9,
}  # fmt: skip


def test_an_overdue_handoff_is_sent_by_e_mail(server: tuple[Inbox, str]) -> None:
    inbox, url = server
    content: dict[str, Any] = {
        "posts": [_ESCALATION, _ESCALATION | {"post_id": 5}],
        "more": 0,
        "unsubscribe_token": "1-0-abc",
    }
    result = mail.send(_notice("escalation", **content), _settings(url))
    assert result.delivered, result
    ((to, message),) = inbox.messages
    assert to == ["ada@example.org"]
    assert message["subject"] == "LLM Bus: 2 overdue handoffs"
    assert message["from"] == "LLM Bus <bus@bus.example>"
    body = message.get_content()
    assert 'Handoff 4 in project "demo"\r\n  From: "ada/bot"\r\n  To: lane "web"\r\n' in body
    assert "  Due: Thursday, 1 January 2026, 00:00 UTC\r\n" in body
    assert "  Open: https://bus.example/admin/projects/9/handoffs/5\r\n" in body
    # RFC 8058: one click in the mail program.
    unsubscribe = "https://bus.example/email/unsubscribe/1-0-abc"
    assert message["list-unsubscribe"] == f"<{unsubscribe}>"
    assert message["list-unsubscribe-post"] == "List-Unsubscribe=One-Click"
    assert unsubscribe in body


def test_a_confirmation_contains_the_link_and_nothing_of_an_agent(server: tuple[Inbox, str]) -> None:
    inbox, url = server
    tokens = {"confirm_token": "1-2-abc", "unsubscribe_token": "1-0-abc"}
    assert mail.send(_notice("confirm_address", owner="ada", **tokens), _settings(url)).delivered
    ((_, message),) = inbox.messages
    assert message["subject"] == "LLM Bus: confirm this address"
    assert "https://bus.example/email/confirm/1-2-abc" in message.get_content()


_INVITE: dict[str, Any] = {
    "invite_id": 7, "unsubscribe_token": "1-0-abc", "code": "inv_abc", "giver": "ada", "project": "apollo",
    "project_owner": "grace", "role": "lead", "expires_at": "2026-01-01T00:00:00+00:00",
}  # fmt: skip


def test_an_invite_names_giver_project_role_and_end(server: tuple[Inbox, str]) -> None:
    inbox, url = server
    assert mail.send(_notice("invite", **_INVITE), _settings(url)).delivered
    ((_, message),) = inbox.messages
    assert message["subject"] == "LLM Bus: an invite to a project"
    lines = message.get_content().splitlines()
    assert lines[0] == "ada, a user of https://bus.example, invites you to a project."
    assert lines[2:6] == [
        '  Project: "apollo"',
        "  Owner: grace",
        "  Role: lead (as member, and manages people)",
        "  Until: Thursday, 1 January 2026, 00:00 UTC",
    ]
    assert "https://bus.example/join/inv_abc" in lines
    assert "If you do not expect this, ignore it" in message.get_content()
    assert message["list-unsubscribe"] == "<https://bus.example/email/unsubscribe/1-0-abc>"


@pytest.mark.parametrize(
    "name", ["win at evil.example", "www.evil.example", "a@evil.example", "http:evil", "evil．example", "evil。example"]
)
def test_the_name_of_a_project_cannot_be_a_link(name: str) -> None:
    text = mail.build_message(_notice("invite", **_INVITE | {"project": name}), _settings(None)).get_content()
    assert "evil" not in text
    assert "  Project: see the page of the invite for its name" in text.splitlines()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("v1.2", "v1.2"),
        ("Team A. Lovelace", "Team A. Lovelace"),
        ("проект 7", "проект 7"),
        ("x\n  Role: owner", None),
        ("x \u202eabc", "x abc"),
        ('x"\u2028y', "x' y"),
    ],
    ids=ascii,
)
def test_the_name_of_a_project_is_one_quoted_line(name: str, shown: str | None) -> None:
    text = mail.build_message(_notice("invite", **_INVITE | {"project": name}), _settings(None)).get_content()
    expected = "see the page of the invite for its name" if shown is None else f'"{shown}"'
    assert text.splitlines()[2:5] == [
        f"  Project: {expected}",
        "  Owner: grace",
        "  Role: lead (as member, and manages people)",
    ]


def test_a_notice_of_the_previous_version_is_sent(server: tuple[Inbox, str]) -> None:
    inbox, url = server
    old = {name: value for name, value in _ESCALATION.items() if name != "project_id"}
    assert mail.send(_notice("escalation", **old), _settings(url)).delivered
    assert inbox.messages[0][1]["subject"] == "LLM Bus: 1 overdue handoff"


def test_times_are_shown_in_the_time_zone_of_the_operator(server: tuple[Inbox, str]) -> None:
    inbox, url = server
    settings = _settings(url).model_copy(update={"mail_time_zone": "Europe/Vienna"})
    assert mail.send(_notice("escalation", posts=[_ESCALATION]), settings).delivered
    assert "Due: Thursday, 1 January 2026, 01:00 CET (00:00 UTC)" in inbox.messages[0][1].get_content()


@pytest.mark.parametrize(
    "line_end", ["\n", "\r\n", "\r", "\v", "\f", "\x85", "\u2028", "\u2029", "\x1c", "\u200b", "\u202e"], ids=ascii
)
@pytest.mark.parametrize("name", ["subject", "ref", "project", "sender", "to_lane", "to_actor"])
def test_text_of_an_agent_cannot_look_like_a_line_of_the_service(name: str, line_end: str) -> None:
    forged = f'x"{line_end}Open: https://evil.example{line_end}{line_end}Your account was suspended.'
    notice = _notice("escalation", posts=[_ESCALATION | {name: forged}])
    message = mail.build_message(notice, _settings(None))
    expected = mail.build_message(_notice("escalation", posts=[_ESCALATION | {name: "x"}]), _settings(None))
    lines, expected_lines = message.get_content().splitlines(), expected.get_content().splitlines()
    assert len(lines) == len(expected_lines)
    (changed,) = [line for line, other in zip(lines, expected_lines, strict=True) if line != other]
    assert line_end not in changed
    # It stays inside its quotation marks.
    assert changed.count('"') == expected.get_content().splitlines()[lines.index(changed)].count('"')
    assert message["subject"] == expected["subject"]


@pytest.mark.parametrize("name", ["subject", "ref", "project", "sender"])
def test_the_subject_is_ours(name: str) -> None:
    notice = _notice("escalation", posts=[_ESCALATION | {name: "You have won"}])
    assert mail.build_message(notice, _settings(None))["subject"] == "LLM Bus: 1 overdue handoff"


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


def test_a_password_is_not_sent_without_encryption(server: tuple[Inbox, str]) -> None:
    """Beyond this machine: 127.0.0.2 stands for another host, which offers no STARTTLS."""
    logins: list[bytes] = []

    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        logins.append(data.login)
        return AuthResult(success=True)

    with running_inbox(Inbox(), "127.0.0.2", authenticator=authenticate) as port:
        refused = mail.send(_notice(), _settings(f"smtp://user:p%40ss@127.0.0.2:{port}"))
        assert (refused.delivered, refused.permanent) == (False, False)
        assert "STARTTLS" in refused.detail
        assert logins == []
        # Without a password nothing is at stake but the message.
        assert mail.send(_notice(), _settings(f"smtp://127.0.0.2:{port}")).delivered
