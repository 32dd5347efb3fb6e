"""`llm-bus mail-test` against a real SMTP server, and against what is none."""

import socket
import threading
from collections.abc import Iterator

import pytest

from cli.exit_codes import ExitCode
from tests.cli.test_commands import Cli
from tests.servers import free_port
from tests.workers.smtp_servers import Inbox, running_inbox


@pytest.fixture
def server() -> Iterator[tuple[Inbox, int]]:
    inbox = Inbox()
    with running_inbox(inbox) as port:
        yield inbox, port


@pytest.fixture
def cli() -> Cli:
    return Cli("postgresql://none@127.0.0.1:1/none")


def test_a_test_mail_is_sent_without_a_database(cli: Cli, server: tuple[Inbox, int]) -> None:
    inbox, port = server
    result = cli.json(
        "mail-test", "ada@example.org", SMTP_URL=f"smtp://user:p@127.0.0.1:{port}", MAIL_FROM="bus@example.org"
    )
    assert result == {"accepted": True, "address": "ada@example.org", "server": f"127.0.0.1:{port}"}
    ((recipients, message),) = inbox.messages
    assert recipients == ["ada@example.org"]
    assert message["subject"] == "LLM Bus: a test"
    assert message["from"] == "bus@example.org"


@pytest.mark.parametrize(
    ("address", "user", "sender", "expected"),
    [
        ("ada@example.org", "stranger:secret-word@", "bus@example.org", "user and password of SMTP_URL: 535"),
        ("unknown@example.org", "", "bus@example.org", "recipient unknown@example.org: 550 no such mailbox"),
        ("ada@example.org", "", "refused@example.org", "sender refused@example.org: 550 no such sender. Set MAIL_FROM"),
    ],
)
def test_a_refusal_names_what_to_correct(
    cli: Cli, server: tuple[Inbox, int], address: str, user: str, sender: str, expected: str
) -> None:
    url = f"smtp://{user}127.0.0.1:{server[1]}"
    refused = cli.run("mail-test", address, SMTP_URL=url, MAIL_FROM=sender)
    assert refused.exit_code == ExitCode.FAILED
    assert expected in refused.stderr
    assert "secret-word" not in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_what_is_no_mail_server_is_named(cli: Cli, server: tuple[Inbox, int]) -> None:
    def refusal(url: str | None) -> str:
        result = cli.run("mail-test", "ada@example.org", **({} if url is None else {"SMTP_URL": url}))
        assert result.exit_code == ExitCode.FAILED
        return str(result.stderr)

    assert "SMTP_URL is not set" in refusal(None)
    assert "refuses the connection. Correct host and port" in refusal(f"smtp://127.0.0.1:{free_port()}")
    assert "does not begin with TLS" in refusal(f"smtps://127.0.0.1:{server[1]}")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.listen()
        port = silent.getsockname()[1]
        # The listener hangs up on the connection that it has accepted.
        thread = threading.Thread(target=lambda: silent.accept()[0].close())
        thread.start()
        assert "closed the connection without an answer" in refusal(f"smtp://127.0.0.1:{port}")
        thread.join()


def test_a_wrong_address_is_refused(cli: Cli) -> None:
    refused = cli.run("mail-test", "ada", SMTP_URL="smtp://127.0.0.1:1")
    assert refused.exit_code == ExitCode.FAILED
    assert "address" in refused.stderr
