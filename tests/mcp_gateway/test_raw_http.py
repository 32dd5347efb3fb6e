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
from mcp_gateway.raw_http_server import RequestHeadParser
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import MODERN
from tests.mcp_gateway.processes import GatewayProcess, running_gateways
from tests.mcp_gateway.raw_http import (
    build_body,
    build_head,
    build_tool_call,
    build_unusual_requests,
    open_raw_connection,
)

_PATIENCE = 20.0


@pytest.fixture(scope="module")
def both(shared_database_url: str) -> Iterator[tuple[GatewayProcess, GatewayProcess]]:
    """A gateway that answers plain requests itself, and one that leaves everything to hypercorn and the SDK."""
    with (
        running_gateways(shared_database_url) as (fast,),
        running_gateways(shared_database_url, GATEWAY_FAST_PATH="0") as (slow,),
    ):
        yield fast, slow


_NAMES = sorted(build_unusual_requests("lbus_", MODERN))


@pytest.mark.parametrize("era", [MODERN, "2025-06-18", None])
@pytest.mark.parametrize("name", _NAMES)
def test_what_is_odd_on_the_wire_is_answered_alike(
    both: tuple[GatewayProcess, GatewayProcess], team: Team, name: str, era: str | None
) -> None:
    token = team.alice.token
    pieces, answers = build_unusual_requests(token, era)[name]
    seen = []
    for process in both:
        with open_raw_connection(process) as line:
            # The gateway has met the token, so that the first request is as plain as it can be.
            assert line.exchange(build_tool_call(token))[0][0] == 200
            try:
                answered = line.exchange(*pieces, response_count=answers)
            except (ConnectionError, h11.RemoteProtocolError):
                answered = ["no HTTP"]
            seen.append((answered, line.is_open(token)))
    assert seen[0] == seen[1]
    if name == "usual":
        ((status, _, body),), is_open = seen[0]
        assert (status, is_open) == (200, True)
        assert b'"label":"alice"' in body


@pytest.mark.parametrize("era", [MODERN, "2025-06-18"])
def test_every_cut_of_a_request_gives_its_answer(gateways: list[GatewayProcess], team: Team, era: str) -> None:
    whole = build_tool_call(team.alice.token, era, "whoami")
    with open_raw_connection(gateways[0]) as line:
        (expected,) = line.exchange(whole)
        for cut in range(1, len(whole), 13):
            assert line.exchange(whole[:cut], whole[cut:]) == [expected], cut


def test_a_slow_body_is_waited_for(gateways: list[GatewayProcess], team: Team) -> None:
    body = build_body()
    with open_raw_connection(gateways[0]) as line:
        line.exchange(build_tool_call(team.alice.token))
        line.socket.sendall(build_head(team.alice.token, len(body)) + body[:10])
        time.sleep(1.5)
        assert line.exchange(body[10:])[0][0] == 200
        assert line.is_open(team.alice.token)


def test_a_client_that_goes_away_in_the_middle_takes_nobody_along(gateways: list[GatewayProcess], team: Team) -> None:
    body = build_body(tool="claim", sequence="gone")
    whole = build_head(team.alice.token, len(body), tool="claim") + body
    for cut in (10, len(whole) - len(body), len(whole) - 1, len(whole)):
        with open_raw_connection(gateways[0]) as line:
            line.socket.sendall(whole[:cut])
    with open_raw_connection(gateways[0]) as line:
        line.socket.sendall(whole[:-1])
        line.socket.shutdown(socket.SHUT_WR)
        # The half of a claim is no claim.
        assert line.exchange()[0][0] == 413
    deadline = time.monotonic() + _PATIENCE
    with open_raw_connection(gateways[0]) as line:
        while time.monotonic() < deadline:
            (answer,) = line.exchange(build_tool_call(team.alice.token, tool="claim", sequence="gone"))
            number = json.loads(answer[2])["result"]["structuredContent"]["number"]
            if number == 3:
                break
        # One whole request was sent and nobody read its answer; it counts, and nothing else does.
        assert number >= 2


def test_the_heads_that_clients_send_are_plain() -> None:
    """Else the tests above would compare hypercorn with itself."""
    from bus.rules.token_format import generate_token

    heads = RequestHeadParser(Gateway(Settings.from_env({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})))
    token = generate_token()
    extras = {
        "httpx": ("User-Agent: python-httpx2/2.9", "Accept-Encoding: gzip, deflate, br", "Connection: keep-alive"),
        "undici": ("user-agent: node", "accept-language: *", "sec-fetch-mode: cors", "accept-encoding: gzip, deflate"),
        "curl": ("User-Agent: curl/8.16.0",),
        "a proxy": ("X-Forwarded-For: 10.0.0.1, 10.0.0.2", "X-Request-Id: 7f-3", "Via: 1.1 vegur"),
    }
    for era in (MODERN, "2025-11-25", None):
        for lines in extras.values():
            head = build_head(token, 300, era, *lines)
            found = heads.parse(head)
            assert found is not None, head
            assert found[0] == 300
            again = heads.parse(head)
            assert again is not None
            # The same but for the id, which is new unless the request brought one; and that makes no head another.
            assert again[:2] == found[:2]
            assert (again[2] == found[2] == "7f-3") is ("X-Request-Id: 7f-3" in lines)
    for head in (
        build_head(token, 300, MODERN, "Connection: close"),
        build_head(token, 0),
        build_head("lbus_x", 300),
        b"\r\n\r\n",
    ):
        assert heads.parse(head) is None


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
def hasty(shared_database_url: str) -> Iterator[GatewayProcess]:
    """A gateway that closes connections which were idle for 1.5 seconds."""

    def start(_module: str, *, env: dict[str, str], output: IO[bytes]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-c", _SHORT], env=env, stdout=output, stderr=subprocess.STDOUT)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tests.mcp_gateway.processes.forked.start", start)
        context = running_gateways(shared_database_url)
        (process,) = context.__enter__()
    yield process
    context.__exit__(None, None, None)


@pytest.mark.parametrize("path", [b" /mcp ", b" /mcp/ "])
def test_a_connection_is_closed_when_it_was_idle_and_not_while_it_is_used(
    hasty: GatewayProcess, team: Team, path: bytes
) -> None:
    """Whoever answers: the second path is hypercorn's."""
    with open_raw_connection(hasty) as line:
        for _ in range(8):
            assert line.exchange(build_tool_call(team.alice.token).replace(b" /mcp ", path))[0][0] == 200
            time.sleep(0.5)
        line.socket.settimeout(_PATIENCE)
        assert line.socket.recv(1) == b""


def test_calls_that_take_longer_than_idling_may_are_all_answered(
    hasty: GatewayProcess, team: Team, gateway_db: Database
) -> None:
    with open_raw_connection(hasty) as line:
        assert line.exchange(build_tool_call(team.alice.token))[0][0] == 200
        with gateway_db.transaction() as conn:
            conn.execute("SELECT bus_lock_clock(%s)", (team.project_id,))
            line.socket.sendall(build_tool_call(team.alice.token, tool="claim", sequence="adr") * 3)
            time.sleep(2)
        answers = line.exchange(response_count=3)
        assert [json.loads(one[2])["result"]["structuredContent"]["number"] for one in answers] == [1, 2, 3]
        assert line.is_open(team.alice.token)


def test_a_client_that_resets_its_connection_leaves_no_traceback(database_url: str) -> None:
    from tests.mcp_gateway.conftest import make_team

    db = Database(database_url, pool_size=2)
    team = make_team(db)
    try:
        with running_gateways(database_url) as (process,):
            with open_raw_connection(process) as line:
                assert line.exchange(build_tool_call(team.alice.token))[0][0] == 200
                with db.transaction() as conn:
                    conn.execute("SELECT bus_lock_clock(%s)", (team.project_id,))
                    line.socket.sendall(build_tool_call(team.alice.token, tool="claim", sequence="adr"))
                    _wait_until_locked(db)
                    # Zero seconds to linger: closing sends a reset.
                    line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    line.socket.close()
                    time.sleep(0.2)
            with open_raw_connection(process) as line:
                assert line.is_open(team.alice.token)
            # The server lets go of what its client has closed.
            descriptors = Path(f"/proc/{process.popen.pid}/fd")
            lines = [socket.create_connection(("127.0.0.1", urlsplit(process.url).port), _PATIENCE) for _ in range(30)]
            for opened in lines:
                opened.sendall(build_tool_call(team.alice.token))
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

    db = Database(database_url, pool_size=2)
    team = make_team(db)
    db.close()
    whole = build_tool_call(team.alice.token)
    with running_gateways(database_url) as (process,), open_raw_connection(process) as line:
        assert line.exchange(whole)[0][0] == 200
        line.socket.sendall(whole[:-20])
        time.sleep(0.3)
        process.popen.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert line.exchange(whole[-20:])[0][0] == 200
        assert process.popen.wait(_PATIENCE) == 0


def test_strangers_leave_nothing_behind() -> None:
    """What is remembered of requests is bounded by those who may call, not by who asks."""
    from bus.ctx import Ctx
    from bus.rules.token_format import fingerprint, generate_token

    gateway = Gateway(Settings.from_env({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}))
    heads = RequestHeadParser(gateway)
    assert all(heads.parse(build_head(generate_token(), length)) is not None for length in range(1, 50))
    assert not heads._cache
    token = generate_token()
    gateway.service.caller_cache._ctx_by_fingerprint[fingerprint(token)] = Ctx(1, 1, 1, 1, 1)
    assert heads.parse(build_head(token, 10)) is not None
    assert len(heads._cache) == 1
    # A tool that there is not, at length, and a head that no agent sends.
    assert heads.parse(build_head(token, 10, tool="x" * 2000)) is None
    assert heads.parse(build_head(token, 10, MODERN, f"X-Long: {'x' * 5000}")) is None
    assert gateway._direct_codec is not None
    for padding in (100, 3000):
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
            "x": "x" * padding,
        }
        params = {"name": "whoami", "arguments": {}, "_meta": meta}
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).encode()
        assert gateway._direct_codec.parse_call(heads.parse(build_head(token, len(body)))[1].protocol, body) is not None
    assert len(gateway._direct_codec._valid_envelopes) == 1


def test_what_is_under_way_at_the_end_is_answered(database_url: str) -> None:
    """A plain call that waits for a lock while the process is told to stop gets its answer first."""
    from tests.mcp_gateway.conftest import make_team

    db = Database(database_url, pool_size=2)
    team = make_team(db)
    answers: list[Any] = []
    try:
        with (
            running_gateways(database_url) as (process,),
            open_raw_connection(process) as line,
            open_raw_connection(process) as idle,
        ):
            assert line.exchange(build_tool_call(team.alice.token))[0][0] == 200
            assert idle.exchange(build_tool_call(team.alice.token))[0][0] == 200
            with db.transaction() as conn:
                conn.execute("SELECT bus_lock_clock(%s)", (team.project_id,))
                whole = build_tool_call(team.alice.token, tool="claim", sequence="adr")
                asking = threading.Thread(target=lambda: answers.extend(line.exchange(whole)))
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

    db = Database(database_url, pool_size=2)
    team = make_team(db)
    body = build_body(tool="claim", sequence="adr")
    head = build_head(team.alice.token, -1, MODERN, "Transfer-Encoding: chunked", tool="claim")
    try:
        with running_gateways(database_url) as (process,), open_raw_connection(process) as line:
            assert line.exchange(build_tool_call(team.alice.token))[0][0] == 200
            with db.transaction() as conn:
                conn.execute("SELECT bus_lock_clock(%s)", (team.project_id,))
                line.socket.sendall(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
                _wait_until_locked(db)
                line.socket.sendall(build_tool_call(team.alice.token))
                time.sleep(0.3)
            first, second = line.exchange(response_count=2)
        assert json.loads(first[2])["result"]["structuredContent"]["number"] == 1
        assert json.loads(second[2])["result"]["structuredContent"]["label"] == "alice"
    finally:
        db.close()


def _wait_until_locked(db: Database) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        with db.connection() as conn:
            waiting = conn.fetch_one(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )[0]
        if waiting:
            return
        time.sleep(0.02)
    raise AssertionError("the call never waited for the lock")
