"""Direct calls and hypercorn give identical responses on one connection, however the bytes are split."""

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
from bus.ctx import Ctx
from bus.db import Database
from bus.rules.token_format import fingerprint, generate_token
from mcp_gateway.app import Gateway
from mcp_gateway.raw_http_server import RequestHeadParser
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.mcp_client import MODERN
from tests.mcp_gateway.processes import GatewayProcess, running_gateways
from tests.mcp_gateway.raw_http import (
    build_body,
    build_head,
    build_tool_call,
    build_unusual_requests,
    open_raw_connection,
)

_TIMEOUT_SECONDS = 20.0


@pytest.fixture(scope="module")
def both(shared_database_url: str) -> Iterator[tuple[GatewayProcess, GatewayProcess]]:
    """A gateway that answers direct calls, and one that passes all requests to hypercorn and the SDK."""
    with (
        running_gateways(shared_database_url) as (direct,),
        running_gateways(shared_database_url, GATEWAY_FAST_PATH="0") as (sdk,),
    ):
        yield direct, sdk


_NAMES = sorted(build_unusual_requests("lbus_", MODERN))


@pytest.mark.parametrize("version", [MODERN, "2025-06-18", None])
@pytest.mark.parametrize("name", _NAMES)
def test_unusual_requests_get_identical_responses(
    both: tuple[GatewayProcess, GatewayProcess], team: Team, name: str, version: str | None
) -> None:
    token = team.alice.token
    pieces, response_count = build_unusual_requests(token, version)[name]
    seen = []
    for process in both:
        with open_raw_connection(process) as connection:
            # The gateway caches the token, so that the request that follows can be a direct call.
            assert connection.exchange(build_tool_call(token))[0][0] == 200
            try:
                responses = connection.exchange(*pieces, response_count=response_count)
            except (ConnectionError, h11.RemoteProtocolError):
                responses = ["no HTTP"]
            seen.append((responses, connection.is_open(token)))
    assert seen[0] == seen[1]
    if name == "usual":
        ((status, _, body),), is_open = seen[0]
        assert (status, is_open) == (200, True)
        assert b'"label":"alice"' in body


@pytest.mark.parametrize("version", [MODERN, "2025-06-18"])
def test_a_request_split_anywhere_gets_the_same_response(
    gateways: list[GatewayProcess], team: Team, version: str
) -> None:
    whole = build_tool_call(team.alice.token, version, "whoami")
    with open_raw_connection(gateways[0]) as connection:
        (expected,) = connection.exchange(whole)
        for cut in range(1, len(whole), 13):
            assert connection.exchange(whole[:cut], whole[cut:]) == [expected], cut


def test_a_slow_body_is_waited_for(gateways: list[GatewayProcess], team: Team) -> None:
    body = build_body()
    with open_raw_connection(gateways[0]) as connection:
        connection.exchange(build_tool_call(team.alice.token))
        connection.socket.sendall(build_head(team.alice.token, len(body)) + body[:10])
        time.sleep(1.5)
        assert connection.exchange(body[10:])[0][0] == 200
        assert connection.is_open(team.alice.token)


def test_a_client_that_disconnects_mid_request_affects_no_other(gateways: list[GatewayProcess], team: Team) -> None:
    body = build_body(tool="claim", sequence="gone")
    whole = build_head(team.alice.token, len(body), tool="claim") + body
    for cut in (10, len(whole) - len(body), len(whole) - 1, len(whole)):
        with open_raw_connection(gateways[0]) as connection:
            connection.socket.sendall(whole[:cut])
    with open_raw_connection(gateways[0]) as connection:
        connection.socket.sendall(whole[:-1])
        connection.socket.shutdown(socket.SHUT_WR)
        # An incomplete claim is not executed.
        assert connection.exchange()[0][0] == 413
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    with open_raw_connection(gateways[0]) as connection:
        while time.monotonic() < deadline:
            (response,) = connection.exchange(build_tool_call(team.alice.token, tool="claim", sequence="gone"))
            number = json.loads(response[2])["result"]["structuredContent"]["number"]
            if number == 3:
                break
        # One complete request was sent whose response was not read; it counts, and the incomplete ones do not.
        assert number >= 2


def test_the_heads_of_common_clients_are_parsed_directly() -> None:
    """Otherwise the tests above would compare hypercorn with itself."""
    parser = RequestHeadParser(Gateway(Settings.from_env({"DATABASE_URL": "postgresql://user@127.0.0.1:1/none"})))
    token = generate_token()
    extras = {
        "httpx": ("User-Agent: python-httpx2/2.9", "Accept-Encoding: gzip, deflate, br", "Connection: keep-alive"),
        "undici": ("user-agent: node", "accept-language: *", "sec-fetch-mode: cors", "accept-encoding: gzip, deflate"),
        "curl": ("User-Agent: curl/8.16.0",),
        "a proxy": ("X-Forwarded-For: 10.0.0.1, 10.0.0.2", "X-Request-Id: 7f-3", "Via: 1.1 vegur"),
    }
    for version in (MODERN, "2025-11-25", None):
        for lines in extras.values():
            head = build_head(token, 300, version, *lines)
            first = parser.parse(head)
            assert first is not None, head
            assert first[0] == 300
            second = parser.parse(head)
            assert second is not None
            # Equal except for the id, which is new unless the request has one; an id does not change the cache key.
            assert second[:2] == first[:2]
            assert (second[2] == first[2] == "7f-3") is ("X-Request-Id: 7f-3" in lines)
    for head in (
        build_head(token, 300, MODERN, "Connection: close"),
        build_head(token, 0),
        build_head("lbus_x", 300),
        b"\r\n\r\n",
    ):
        assert parser.parse(head) is None


_SHORT_IDLE_PROGRAM = """
import uvloop
from mcp_gateway import __main__ as gateway
build_config = gateway.build_hypercorn_config
def build_short_config(settings):
    config = build_config(settings)
    config.keep_alive_timeout = 1.5
    return config
gateway.build_hypercorn_config = build_short_config
gateway.main()
"""


@pytest.fixture(scope="module")
def gateway_with_short_idle_timeout(shared_database_url: str) -> Iterator[GatewayProcess]:
    """A gateway that closes connections after 1.5 idle seconds."""

    def start(_module: str, *, env: dict[str, str], output: IO[bytes]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-c", _SHORT_IDLE_PROGRAM], env=env, stdout=output, stderr=subprocess.STDOUT
        )

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tests.mcp_gateway.processes.process_pool.start_module", start)
        with running_gateways(shared_database_url) as (process,):
            yield process


@pytest.mark.parametrize("path", [b" /mcp ", b" /mcp/ "])
def test_a_connection_is_closed_when_idle_and_not_while_in_use(
    gateway_with_short_idle_timeout: GatewayProcess, team: Team, path: bytes
) -> None:
    """The second path is answered by hypercorn."""
    with open_raw_connection(gateway_with_short_idle_timeout) as connection:
        for _ in range(8):
            assert connection.exchange(build_tool_call(team.alice.token).replace(b" /mcp ", path))[0][0] == 200
            time.sleep(0.5)
        connection.socket.settimeout(_TIMEOUT_SECONDS)
        assert connection.socket.recv(1) == b""


def test_calls_longer_than_the_idle_timeout_are_answered(
    gateway_with_short_idle_timeout: GatewayProcess, team: Team, gateway_db: Database
) -> None:
    with open_raw_connection(gateway_with_short_idle_timeout) as connection:
        assert connection.exchange(build_tool_call(team.alice.token))[0][0] == 200
        with gateway_db.transaction() as conn:
            conn.execute("SELECT bus_lock_clock(%s)", (team.project_id,))
            connection.socket.sendall(build_tool_call(team.alice.token, tool="claim", sequence="adr") * 3)
            time.sleep(2)
        responses = connection.exchange(response_count=3)
        assert [json.loads(body)["result"]["structuredContent"]["number"] for _, _, body in responses] == [1, 2, 3]
        assert connection.is_open(team.alice.token)


def test_a_client_that_resets_its_connection_leaves_no_traceback(database_url: str) -> None:
    db = Database(database_url, pool_size=2)
    team = make_team(db)
    try:
        with running_gateways(database_url) as (process,):
            with open_raw_connection(process) as connection:
                assert connection.exchange(build_tool_call(team.alice.token))[0][0] == 200
                with db.transaction() as conn:
                    conn.execute("SELECT bus_lock_clock(%s)", (team.project_id,))
                    connection.socket.sendall(build_tool_call(team.alice.token, tool="claim", sequence="adr"))
                    _wait_until_locked(db)
                    # Zero seconds to linger: closing sends a reset.
                    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.socket.close()
                    time.sleep(0.2)
            with open_raw_connection(process) as connection:
                assert connection.is_open(team.alice.token)
            # The server closes its side after the client has closed.
            descriptors = Path(f"/proc/{process.popen.pid}/fd")
            sockets = [
                socket.create_connection(("127.0.0.1", urlsplit(process.url).port), _TIMEOUT_SECONDS) for _ in range(30)
            ]
            for client_socket in sockets:
                client_socket.sendall(build_tool_call(team.alice.token))
                assert client_socket.recv(10)
                client_socket.close()
            time.sleep(1)
            if descriptors.exists():
                assert len(list(descriptors.iterdir())) < 40
            process.stop()
            assert "Traceback" not in process.log.read_text()
    finally:
        db.close()


def test_a_partially_received_request_is_answered_before_the_process_stops(database_url: str) -> None:
    db = Database(database_url, pool_size=2)
    team = make_team(db)
    db.close()
    whole = build_tool_call(team.alice.token)
    with running_gateways(database_url) as (process,), open_raw_connection(process) as connection:
        assert connection.exchange(whole)[0][0] == 200
        connection.socket.sendall(whole[:-20])
        time.sleep(0.3)
        process.popen.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert connection.exchange(whole[-20:])[0][0] == 200
        assert process.popen.wait(_TIMEOUT_SECONDS) == 0


def test_requests_without_a_known_token_are_not_cached() -> None:
    """The size of the caches depends on the tokens of the service, not on the requests."""
    gateway = Gateway(Settings.from_env({"DATABASE_URL": "postgresql://user@127.0.0.1:1/none"}))
    parser = RequestHeadParser(gateway)
    assert all(parser.parse(build_head(generate_token(), length)) is not None for length in range(1, 50))
    assert not parser._cache
    token = generate_token()
    gateway.service.caller_cache._ctx_by_fingerprint[fingerprint(token)] = Ctx(1, 1, 1, 1, 1)
    assert parser.parse(build_head(token, 10)) is not None
    assert len(parser._cache) == 1
    # An unknown tool with a long name, and a head that is too long.
    assert parser.parse(build_head(token, 10, tool="x" * 2000)) is None
    assert parser.parse(build_head(token, 10, MODERN, f"X-Long: {'x' * 5000}")) is None
    assert gateway._direct_codec is not None
    for padding in (100, 3000):
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
            "x": "x" * padding,
        }
        params = {"name": "whoami", "arguments": {}, "_meta": meta}
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).encode()
        assert (
            gateway._direct_codec.parse_call(parser.parse(build_head(token, len(body)))[1].protocol, body) is not None
        )
    assert len(gateway._direct_codec._valid_envelopes) == 1


def test_a_call_in_progress_is_answered_before_the_process_stops(database_url: str) -> None:
    """A direct call that waits for a lock when SIGTERM arrives gets its response first."""
    db = Database(database_url, pool_size=2)
    team = make_team(db)
    responses: list[Any] = []
    try:
        with (
            running_gateways(database_url) as (process,),
            open_raw_connection(process) as connection,
            open_raw_connection(process) as idle,
        ):
            assert connection.exchange(build_tool_call(team.alice.token))[0][0] == 200
            assert idle.exchange(build_tool_call(team.alice.token))[0][0] == 200
            with db.transaction() as conn:
                conn.execute("SELECT bus_lock_clock(%s)", (team.project_id,))
                whole = build_tool_call(team.alice.token, tool="claim", sequence="adr")
                client_thread = threading.Thread(target=lambda: responses.extend(connection.exchange(whole)))
                client_thread.start()
                _wait_until_locked(db)
                process.popen.send_signal(signal.SIGTERM)
                # Idle connections are closed at once.
                assert idle.socket.recv(1) == b""
            client_thread.join(_TIMEOUT_SECONDS)
            assert process.popen.wait(_TIMEOUT_SECONDS) == 0
        ((status, _, body),) = responses
        assert status == 200
        assert json.loads(body)["result"]["structuredContent"]["number"] == 1
    finally:
        db.close()


def test_responses_keep_the_order_of_their_requests(database_url: str) -> None:
    """A direct call that arrives while hypercorn still answers another request waits for its turn."""
    db = Database(database_url, pool_size=2)
    team = make_team(db)
    body = build_body(tool="claim", sequence="adr")
    head = build_head(team.alice.token, -1, MODERN, "Transfer-Encoding: chunked", tool="claim")
    try:
        with running_gateways(database_url) as (process,), open_raw_connection(process) as connection:
            assert connection.exchange(build_tool_call(team.alice.token))[0][0] == 200
            with db.transaction() as conn:
                conn.execute("SELECT bus_lock_clock(%s)", (team.project_id,))
                connection.socket.sendall(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
                _wait_until_locked(db)
                connection.socket.sendall(build_tool_call(team.alice.token))
                time.sleep(0.3)
            first, second = connection.exchange(response_count=2)
        assert json.loads(first[2])["result"]["structuredContent"]["number"] == 1
        assert json.loads(second[2])["result"]["structuredContent"]["label"] == "alice"
    finally:
        db.close()


def _wait_until_locked(db: Database) -> None:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        with db.connection() as conn:
            waiting = conn.fetch_one(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )[0]
        if waiting:
            return
        time.sleep(0.02)
    raise AssertionError("the call never waited for the lock")
