"""Connections of the HTTP server: idle timeouts, resets, and the end of the process."""

import contextlib
import json
import select
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from bus.db import Database
from tests.concurrency import wait_until, wait_until_locked
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.processes import GatewayProcess, running_gateways
from tests.mcp_gateway.raw_http import (
    build_tool_call,
    open_raw_connection,
)

_TIMEOUT_SECONDS = 120.0


_SHORT_INTERVALS = {
    "mcp_gateway.http_protocol.KEEP_ALIVE_SECONDS": 1.5,
    "mcp_gateway.http_protocol.HEAD_TIMEOUT_SECONDS": 1.5,
    "mcp_gateway.http_server._CONNECTION_CHECK_SECONDS": 0.1,
}


@pytest.fixture(scope="module")
def gateway_with_short_idle_timeout(shared_database_url: str) -> Iterator[GatewayProcess]:
    """A gateway that closes connections after 1.5 idle seconds."""
    with running_gateways(shared_database_url, constants=_SHORT_INTERVALS) as (process,):
        yield process


def test_a_connection_is_closed_when_idle_and_not_while_in_use(
    gateway_with_short_idle_timeout: GatewayProcess, team: Team
) -> None:
    with open_raw_connection(gateway_with_short_idle_timeout) as connection:
        for _ in range(8):
            assert connection.exchange(build_tool_call(team.alice.token))[0][0] == 200
            connection.assert_silent(0.5)
        connection.socket.settimeout(_TIMEOUT_SECONDS)
        assert connection.socket.recv(1) == b""


def test_a_head_that_is_sent_slowly_is_not_waited_for(gateway_with_short_idle_timeout: GatewayProcess) -> None:
    with open_raw_connection(gateway_with_short_idle_timeout) as connection:
        with contextlib.suppress(ConnectionError):
            for byte in b"POST /mcp HTTP/1.1\r\nHost: localhost\r\n":
                connection.socket.sendall(bytes([byte]))
                # The server closes the connection before the end of the head.
                if select.select([connection.socket], [], [], 0.1)[0]:
                    break
            assert connection.socket.recv(1) == b""


def test_calls_longer_than_the_idle_timeout_are_answered(
    gateway_with_short_idle_timeout: GatewayProcess, team: Team, gateway_db: Database
) -> None:
    with open_raw_connection(gateway_with_short_idle_timeout) as connection:
        assert connection.exchange(build_tool_call(team.alice.token))[0][0] == 200
        with gateway_db.transaction() as conn:
            conn.execute("SELECT bus_lock_clock(%s)", (team.project_id,))
            connection.socket.sendall(build_tool_call(team.alice.token, tool="claim", sequence="adr") * 3)
            connection.assert_silent(2)
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
                    wait_until_locked(db)
                    # Zero seconds to linger: closing sends a reset.
                    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.socket.close()
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
            if descriptors.exists():
                wait_until(lambda: len(list(descriptors.iterdir())) < 40)
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
        connection.assert_silent(0.3)
        process.popen.send_signal(signal.SIGTERM)
        connection.assert_silent(0.3)
        assert connection.exchange(whole[-20:])[0][0] == 200
        assert process.popen.wait(_TIMEOUT_SECONDS) == 0


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
                wait_until_locked(db)
                process.popen.send_signal(signal.SIGTERM)
                # An idle connection is closed soon, although another one still waits for its answer.
                assert idle.socket.recv(1) == b""
            client_thread.join(_TIMEOUT_SECONDS)
            assert process.popen.wait(_TIMEOUT_SECONDS) == 0
        ((status, _, body),) = responses
        assert status == 200
        assert json.loads(body)["result"]["structuredContent"]["number"] == 1
    finally:
        db.close()
