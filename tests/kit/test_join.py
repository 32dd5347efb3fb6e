"""Joining with an invite: a lost answer loses neither the token nor the invite."""

import contextlib
import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from bus.db import Database
from bus.tenancy import invites
from tests.kit import faulty_servers
from tests.kit.git_repo import INSTALLER_PATH, CompletedCommand, GitRepo
from tests.kit.recording_server import read_request
from tests.kit.web_server import running_web
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.processes import GatewayProcess


@pytest.fixture
def home(kit_database_url: str, gateway: GatewayProcess) -> Iterator[str]:
    """The address of the web of the bus."""
    with running_web(kit_database_url, gateway.url) as (_, address):
        yield address


@pytest.fixture
def code(kit_db: Database, team: Team) -> str:
    """An invite for one participant."""
    with kit_db.transaction() as conn:
        return invites.create_for_owner(conn, team.project_id, actor="cli").code


@contextlib.contextmanager
def losing_proxy(home: str, losses: list[str]) -> Iterator[tuple[str, list[bytes]]]:
    """Forward each request to the web; lose the answers in the ways that `losses` lists, then deliver them.

    Yields:
        The address of the proxy, and the requests that reached the web.
    """
    requests: list[bytes] = []
    target = urlsplit(home)

    def forward(connection: socket.socket) -> None:
        request = read_request(connection)
        requests.append(request)
        with socket.create_connection((target.hostname or "", target.port or 80)) as web:
            web.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            answer = b"".join(iter(lambda: web.recv(65536), b""))
        loss = losses.pop(0) if losses else "none"
        if loss == "cut":
            connection.sendall(answer[: len(answer) - 200])
        elif loss == "bad gateway":
            connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\n{}")
        elif loss == "page":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")
        elif loss == "none":
            connection.sendall(answer)
        connection.close()

    with faulty_servers.running_server(forward) as port:
        yield f"http://127.0.0.1:{port}", requests


def join(repo: GitRepo, home: str, code: str, *arguments: str) -> CompletedCommand:
    return repo.run(
        repo.launcher,
        str(INSTALLER_PATH),
        "--client",
        "none",
        "--home",
        home,
        "--name",
        "carol",
        *arguments,
        LLM_BUS_INVITE=code,
    )


@pytest.mark.parametrize("loss", ["closed", "cut", "bad gateway", "page"])
def test_a_lost_answer_is_requested_again_with_the_same_nonce(
    plain: GitRepo, home: str, code: str, team: Team, loss: str
) -> None:
    with losing_proxy(home, [loss]) as (proxy, requests):
        done = join(plain, proxy, code)
    assert done.returncode == 0, done
    first, second = (request.partition(b"\r\n\r\n")[2] for request in requests)
    assert first == second
    assert b'"nonce"' in first
    assert f"/carol in project {team.alice.project}" in done.stdout
    assert (plain.root / ".git/llm-bus/token").exists()
    assert not (plain.root / ".git/llm-bus/redemption.json").exists()


def test_after_two_lost_answers_the_next_run_gets_the_token(plain: GitRepo, home: str, code: str) -> None:
    with losing_proxy(home, ["closed", "closed"]) as (proxy, requests):
        done = join(plain, proxy, code)
        assert done.returncode == 1
        assert "Run the same command again" in done.stderr
        assert len(requests) == 2
        assert not (plain.root / ".git/llm-bus/token").exists()
        done = join(plain, proxy, code)
        assert done.returncode == 0, done
    token = (plain.root / ".git/llm-bus/token").read_text().strip()
    nonce_shown = [text for text in (done.stdout, done.stderr) if token in text or code in text]
    assert nonce_shown == []


def test_a_refusal_is_final_and_a_second_invite_gets_a_nonce_of_its_own(
    plain: GitRepo, home: str, code: str, kit_db: Database, team: Team
) -> None:
    with losing_proxy(home, []) as (proxy, requests):
        refused = join(plain, proxy, "inv_" + "0" * 26)
        assert (refused.returncode, "not valid" in refused.stderr) == (1, True)
        assert len(requests) == 1
        assert join(plain, proxy, code).returncode == 0
        used_up = join(plain, proxy, code)
        assert (used_up.returncode, "used already" in used_up.stderr) == (1, True)
    nonces = {request.partition(b'"nonce": "')[2][:32] for request in requests}
    assert len(nonces) == 3


def test_an_answer_without_a_token_of_a_bus_is_refused(plain: GitRepo) -> None:
    setup = {"mcp_url": "https://bus.example.org/mcp"}
    answer = {"ok": True, "token": "ghp_secret", "setup": setup, "project": "p", "participant": "c"}
    body = json.dumps(answer).encode()
    with faulty_servers.running_server(faulty_servers.respond_with("200 OK", body)) as port:
        done = join(plain, f"http://127.0.0.1:{port}", "inv_x")
    assert (done.returncode, "did not answer with a token of a bus" in done.stderr) == (1, True)
    assert not (plain.root / ".git/llm-bus/token").exists()
