"""Bytes on a connection: plain requests and all others are answered alike, on one connection, however they are cut."""

import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import h11
import pytest

from bus.config.settings import Settings
from bus.db import Database
from mcp_gateway.app import Gateway
from mcp_gateway.raw_http_server import Heads
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import MODERN
from tests.mcp_gateway.processes import Process, running
from tests.mcp_gateway.raw_http import body_of, head_of, line_to, odd, usual_call

_PATIENCE = 20.0


@pytest.fixture(scope="module")
def both(shared_database_url: str) -> Iterator[tuple[Process, Process]]:
    """A gateway that answers plain requests itself, and one that leaves everything to hypercorn and the SDK."""
    with running(shared_database_url) as (fast,), running(shared_database_url, GATEWAY_FAST_PATH="0") as (slow,):
        yield fast, slow


_NAMES = sorted(odd("lbus_", MODERN))


@pytest.mark.parametrize("era", [MODERN, "2025-06-18", None])
@pytest.mark.parametrize("name", _NAMES)
def test_what_is_odd_on_the_wire_is_answered_alike(
    both: tuple[Process, Process], team: Team, name: str, era: str | None
) -> None:
    token = team.alice.token
    pieces, answers = odd(token, era)[name]
    seen = []
    for process in both:
        with line_to(process) as line:
            # The gateway has met the token, so that the first request is as plain as it can be.
            assert line.ask(usual_call(token))[0][0] == 200
            try:
                answered = line.ask(*pieces, answers=answers)
            except (ConnectionError, h11.RemoteProtocolError):
                answered = ["no HTTP"]
            seen.append((answered, line.is_open(token)))
    assert seen[0] == seen[1]
    if name == "usual":
        ((status, _, body),), is_open = seen[0]
        assert (status, is_open) == (200, True)
        assert b'"label":"alice"' in body


@pytest.mark.parametrize("era", [MODERN, "2025-06-18"])
def test_every_cut_of_a_request_gives_its_answer(gateways: list[Process], team: Team, era: str) -> None:
    whole = usual_call(team.alice.token, era, "whoami")
    with line_to(gateways[0]) as line:
        (expected,) = line.ask(whole)
        for cut in range(1, len(whole), 13):
            assert line.ask(whole[:cut], whole[cut:]) == [expected], cut


def test_a_slow_body_is_waited_for(gateways: list[Process], team: Team) -> None:
    body = body_of()
    with line_to(gateways[0]) as line:
        line.ask(usual_call(team.alice.token))
        line.socket.sendall(head_of(team.alice.token, len(body)) + body[:10])
        time.sleep(1.5)
        assert line.ask(body[10:])[0][0] == 200
        assert line.is_open(team.alice.token)


def test_a_client_that_goes_away_in_the_middle_takes_nobody_along(gateways: list[Process], team: Team) -> None:
    body = body_of(tool="claim", sequence="gone")
    whole = head_of(team.alice.token, len(body), tool="claim") + body
    for cut in (10, len(whole) - len(body), len(whole) - 1, len(whole)):
        with line_to(gateways[0]) as line:
            line.socket.sendall(whole[:cut])
    with line_to(gateways[0]) as line:
        line.socket.sendall(whole[:-1])
        line.socket.shutdown(socket.SHUT_WR)
        # The half of a claim is no claim.
        assert line.ask()[0][0] == 413
    deadline = time.monotonic() + _PATIENCE
    with line_to(gateways[0]) as line:
        while time.monotonic() < deadline:
            (answer,) = line.ask(usual_call(team.alice.token, tool="claim", sequence="gone"))
            number = json.loads(answer[2])["result"]["structuredContent"]["number"]
            if number == 3:
                break
        # One whole request was sent and nobody read its answer; it counts, and nothing else does.
        assert number >= 2


def test_the_heads_that_clients_send_are_plain() -> None:
    """Else the tests above would compare hypercorn with itself."""
    from bus.rules.token_format import mint

    heads = Heads(Gateway(Settings.from_env({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})))
    token = mint()
    extras = {
        "httpx": ("User-Agent: python-httpx2/2.9", "Accept-Encoding: gzip, deflate, br", "Connection: keep-alive"),
        "undici": ("user-agent: node", "accept-language: *", "sec-fetch-mode: cors", "accept-encoding: gzip, deflate"),
        "curl": ("User-Agent: curl/8.16.0",),
        "a proxy": ("X-Forwarded-For: 10.0.0.1, 10.0.0.2", "X-Request-Id: 7f-3", "Via: 1.1 vegur"),
    }
    for era in (MODERN, "2025-11-25", None):
        for lines in extras.values():
            head = head_of(token, 300, era, *lines)
            found = heads.read(head)
            assert found is not None, head
            assert found[0] == 300
            again = heads.read(head)
            assert again is not None
            # The same but for the id, which is new unless the request brought one; and that makes no head another.
            assert again[:2] == found[:2]
            assert (again[2] == found[2] == "7f-3") is ("X-Request-Id: 7f-3" in lines)
    for head in (
        head_of(token, 300, MODERN, "Connection: close"),
        head_of(token, 0),
        head_of("lbus_x", 300),
        b"\r\n\r\n",
    ):
        assert heads.read(head) is None


_SHORT = """
import uvloop
from bus.settings import Settings
from mcp_gateway import __main__ as main
whole = main.hypercorn_config
def short(settings):
    config = whole(settings)
    config.keep_alive_timeout = 1.5
    return config
main.hypercorn_config = short
main.main()
"""


@pytest.fixture(scope="module")
def hasty(shared_database_url: str) -> Iterator[Process]:
    """A gateway that closes connections which were idle for 1.5 seconds."""

    def start(_module: str, *, env: dict[str, str], output: IO[bytes]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-c", _SHORT], env=env, stdout=output, stderr=subprocess.STDOUT)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tests.mcp_gateway.processes.forked.start", start)
        context = running(shared_database_url)
        (process,) = context.__enter__()
    yield process
    context.__exit__(None, None, None)


@pytest.mark.parametrize("path", [b" /mcp ", b" /mcp/ "])
def test_a_connection_is_closed_when_it_was_idle_and_not_while_it_is_used(
    hasty: Process, team: Team, path: bytes
) -> None:
    """Whoever answers: the second path is hypercorn's."""
    with line_to(hasty) as line:
        for _ in range(8):
            assert line.ask(usual_call(team.alice.token).replace(b" /mcp ", path))[0][0] == 200
            time.sleep(0.5)
        line.socket.settimeout(_PATIENCE)
        assert line.socket.recv(1) == b""


def test_calls_that_take_longer_than_idling_may_are_all_answered(
    hasty: Process, team: Team, served_db: Database
) -> None:
    with line_to(hasty) as line:
        assert line.ask(usual_call(team.alice.token))[0][0] == 200
        with served_db.write() as conn:
            conn.one("SELECT bus_lock_clock(%s)", (team.project_id,))
            line.socket.sendall(usual_call(team.alice.token, tool="claim", sequence="adr") * 3)
            time.sleep(2)
        answers = line.ask(answers=3)
        assert [json.loads(one[2])["result"]["structuredContent"]["number"] for one in answers] == [1, 2, 3]
        assert line.is_open(team.alice.token)


def test_a_client_that_resets_its_connection_leaves_no_traceback(database_url: str) -> None:
    from tests.mcp_gateway.conftest import make_team

    db = Database(database_url, size=2)
    team = make_team(db)
    try:
        with running(database_url) as (process,):
            with line_to(process) as line:
                assert line.ask(usual_call(team.alice.token))[0][0] == 200
                with db.write() as conn:
                    conn.one("SELECT bus_lock_clock(%s)", (team.project_id,))
                    line.socket.sendall(usual_call(team.alice.token, tool="claim", sequence="adr"))
                    _wait_until_locked(db)
                    # Zero seconds to linger: closing sends a reset.
                    line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    line.socket.close()
                    time.sleep(0.2)
            with line_to(process) as line:
                assert line.is_open(team.alice.token)
            # The server lets go of what its client has closed.
            descriptors = Path(f"/proc/{process.popen.pid}/fd")
            lines = [socket.create_connection(("127.0.0.1", urlsplit(process.url).port), _PATIENCE) for _ in range(30)]
            for opened in lines:
                opened.sendall(usual_call(team.alice.token))
                assert opened.recv(10)
                opened.close()
            time.sleep(1)
            if descriptors.exists():
                assert len(list(descriptors.iterdir())) < 40
            process.stop()
            assert "Traceback" not in process.log.read_text()
    finally:
        db.close()


def test_a_body_on_its_way_at_the_end_is_waited_for(database_url: str) -> None:
    from tests.mcp_gateway.conftest import make_team

    db = Database(database_url, size=2)
    team = make_team(db)
    db.close()
    whole = usual_call(team.alice.token)
    with running(database_url) as (process,), line_to(process) as line:
        assert line.ask(whole)[0][0] == 200
        line.socket.sendall(whole[:-20])
        time.sleep(0.3)
        process.popen.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert line.ask(whole[-20:])[0][0] == 200
        assert process.popen.wait(_PATIENCE) == 0


def test_strangers_leave_nothing_behind() -> None:
    """What is remembered of requests is bounded by those who may call, not by who asks."""
    from bus.ctx import Ctx
    from bus.rules.token_format import fingerprint, mint

    gateway = Gateway(Settings.from_env({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}))
    heads = Heads(gateway)
    assert all(heads.read(head_of(mint(), length)) is not None for length in range(1, 50))
    assert not heads._known
    token = mint()
    gateway.service.callers._known[fingerprint(token)] = Ctx(1, 1, 1, 1, 1)
    assert heads.read(head_of(token, 10)) is not None
    assert len(heads._known) == 1
    # A tool that there is not, at length, and a head that no agent sends.
    assert heads.read(head_of(token, 10, tool="x" * 2000)) is None
    assert heads.read(head_of(token, 10, MODERN, f"X-Long: {'x' * 5000}")) is None
    assert gateway._fast is not None
    for padding in (100, 3000):
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
            "x": "x" * padding,
        }
        params = {"name": "whoami", "arguments": {}, "_meta": meta}
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).encode()
        assert gateway._fast.recognise(heads.read(head_of(token, len(body)))[1].spoken, body) is not None
    assert len(gateway._fast._envelopes) == 1


def test_what_is_under_way_at_the_end_is_answered(database_url: str) -> None:
    """A plain call that waits for a lock while the process is told to stop gets its answer first."""
    from tests.mcp_gateway.conftest import make_team

    db = Database(database_url, size=2)
    team = make_team(db)
    answers: list[Any] = []
    try:
        with running(database_url) as (process,), line_to(process) as line, line_to(process) as idle:
            assert line.ask(usual_call(team.alice.token))[0][0] == 200
            assert idle.ask(usual_call(team.alice.token))[0][0] == 200
            with db.write() as conn:
                conn.one("SELECT bus_lock_clock(%s)", (team.project_id,))
                whole = usual_call(team.alice.token, tool="claim", sequence="adr")
                asking = threading.Thread(target=lambda: answers.extend(line.ask(whole)))
                asking.start()
                _wait_until_locked(db)
                process.popen.send_signal(signal.SIGTERM)
                # Who asks for nothing is sent away at once.
                assert idle.socket.recv(1) == b""
            asking.join(_PATIENCE)
            assert process.popen.wait(_PATIENCE) == 0
        ((status, _, body),) = answers
        assert status == 200
        assert json.loads(body)["result"]["structuredContent"]["number"] == 1
    finally:
        db.close()


def test_answers_come_in_the_order_of_their_requests(database_url: str) -> None:
    """A plain request that arrives while hypercorn still answers another one waits for its turn."""
    from tests.mcp_gateway.conftest import make_team

    db = Database(database_url, size=2)
    team = make_team(db)
    body = body_of(tool="claim", sequence="adr")
    head = head_of(team.alice.token, -1, MODERN, "Transfer-Encoding: chunked", tool="claim")
    try:
        with running(database_url) as (process,), line_to(process) as line:
            assert line.ask(usual_call(team.alice.token))[0][0] == 200
            with db.write() as conn:
                conn.one("SELECT bus_lock_clock(%s)", (team.project_id,))
                line.socket.sendall(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
                _wait_until_locked(db)
                line.socket.sendall(usual_call(team.alice.token))
                time.sleep(0.3)
            first, second = line.ask(answers=2)
        assert json.loads(first[2])["result"]["structuredContent"]["number"] == 1
        assert json.loads(second[2])["result"]["structuredContent"]["label"] == "alice"
    finally:
        db.close()


def _wait_until_locked(db: Database) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        with db.call() as conn:
            waiting = conn.one(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )[0]
        if waiting:
            return
        time.sleep(0.02)
    raise AssertionError("the call never waited for the lock")
