"""The HTTP server at a raw socket: accepted and refused requests, order of answers, timeouts and shutdown."""

import contextlib
import json
import socket
import time
from urllib.parse import urlsplit

import pytest

from bus.config.settings import Settings
from bus.ctx import Ctx
from bus.db import Database
from bus.rules.token_format import fingerprint, generate_token
from mcp_gateway import request_body
from mcp_gateway.app import Gateway
from mcp_gateway.http_protocol import HEAD_TIMEOUT_SECONDS
from mcp_gateway.request_head import RequestHead
from tests.concurrency import wait_until_locked
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

_TIMEOUT_SECONDS = 120.0


# What the server answers to each form of a request: the statuses, and whether the connection stays open.
_EXPECTED: dict[str, tuple[list[int], bool]] = {
    "usual": ([200], True),
    "body after its head": ([200], True),
    "cut in the head": ([200], True),
    "cut in the line ends": ([200], True),
    "cut in the body": ([200], True),
    "byte after byte at the end": ([200], True),
    "three at once": ([200, 200, 200], True),
    "three, cut in the second": ([200, 200, 200], True),
    "direct, other, direct": ([200, 400, 200], True),
    "an empty line before": ([200], True),
    "bare line feeds": ([400], False),
    "a folded header": ([400], False),
    "names in capitals": ([200], True),
    "no blank after a colon": ([200], True),
    "blanks around a value": ([200], True),
    "a blank before a colon": ([400], False),
    "an empty value": ([200], True),
    "a value in Latin-1": ([200], True),
    "a control character": ([400], False),
    "a nul": ([400], False),
    "HTTP/1.0": ([200], False),
    "HTTP/1.2": ([400], False),
    "not HTTP": ([400], False),
    "a method in small letters": ([400], False),
    "a whole address": ([400], False),
    "a slash at the end": ([200], True),
    "a query": ([200], True),
    "an escaped path": ([200], True),
    "another path": ([404], True),
    "close": ([200], False),
    "keep-alive": ([200], True),
    "Keep-Alive, close": ([200], False),
    "upgrade to h2c": ([400], True),
    "expect": ([200], True),
    "chunked": ([200], True),
    "trailers": ([200], True),
    "chunked and a length": ([400], False),
    "chunked, but with a correct length": ([400], False),
    "a request in a header of another": ([404], True),
    "two equal lengths": ([400], False),
    "two lengths": ([400], False),
    "two lengths in one": ([400], False),
    "a length with a sign": ([400], False),
    "a length with a leading zero": ([200], True),
    "no length": ([400], True),
    "an empty body": ([400], True),
    "a body that is too short": ([400], True),
    "no host": ([421], False),
    "two hosts": ([421], False),
    "another host": ([421], False),
    "another origin": ([403], False),
    "two tokens": ([400], False),
    "another token": ([401], False),
    "another scheme": ([401], False),
    "a scheme in small letters": ([200], True),
    "not UTF-8": ([400], False),
    "not UTF-8 in the envelope": ([400], True),
    "an encoded body": ([200], True),
    "a large head": ([200], True),
    "a head that is too large": ([400], False),
    "a head a little too large": ([400], False),
    "many headers, together too large": ([400], False),
    "an address that is too long": ([400], False),
}
# Requests that a proxy in front could understand differently. None of them reaches the application.
_AMBIGUOUS = (
    "bare line feeds",
    "a folded header",
    "a blank before a colon",
    "a nul",
    "a whole address",
    "chunked and a length",
    "chunked, but with a correct length",
    "two equal lengths",
    "two lengths",
    "two lengths in one",
    "a length with a sign",
    "two hosts",
    "a head that is too large",
    "a head a little too large",
    "many headers, together too large",
    "an address that is too long",
)


@pytest.mark.parametrize("name", sorted(_EXPECTED))
def test_each_form_of_a_request_gets_its_answer(gateways: list[GatewayProcess], team: Team, name: str) -> None:
    token = team.alice.token
    pieces, response_count = build_unusual_requests(token, MODERN)[name]
    with open_raw_connection(gateways[0]) as connection:
        assert connection.exchange(build_tool_call(token))[0][0] == 200
        statuses = [response[0] for response in connection.exchange(*pieces, response_count=response_count)]
        assert (statuses, connection.is_open(token)) == _EXPECTED[name]


def test_every_form_has_an_expected_answer() -> None:
    assert set(_EXPECTED) == set(build_unusual_requests("lbus_", MODERN))
    for name in _AMBIGUOUS:
        (status,), is_open = _EXPECTED[name]
        assert status >= 400, name
        assert not is_open, name


def test_a_claim_in_an_ambiguous_request_is_not_executed(gateways: list[GatewayProcess], team: Team) -> None:
    body = build_body(tool="claim", sequence="smuggled")
    head = build_head(team.alice.token, len(body), tool="claim")
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    for request in (
        build_head(team.alice.token, len(body), MODERN, "Transfer-Encoding: chunked", tool="claim") + chunked,
        build_head(team.alice.token, len(body), MODERN, "Content-Length: 3", tool="claim") + body,
        build_head(team.alice.token, len(body), MODERN, "Host: localhost", tool="claim") + body,
        head.replace(b" /mcp ", b" http://evil.example/mcp ") + body,
        head.replace(b"\r\n", b"\n") + body,
        build_head(team.alice.token, len(body), MODERN, "X-A: a\r\n b", tool="claim") + body,
    ):
        with open_raw_connection(gateways[0]) as connection:
            responses = connection.exchange(request)
            assert not responses or responses[0][0] >= 400
    with open_raw_connection(gateways[0]) as connection:
        (response,) = connection.exchange(build_tool_call(team.alice.token, tool="claim", sequence="smuggled"))
        assert json.loads(response[2])["result"]["structuredContent"]["number"] == 1


def test_a_head_that_never_ends_is_refused(gateways: list[GatewayProcess]) -> None:
    started = time.monotonic()
    with open_raw_connection(gateways[0]) as connection:
        connection.socket.sendall(b"POST /mcp HTTP/1.1\r\nX-Long: ")
        received = b""
        # The server closes its side while the client still sends, so a reset may take the place of the answer.
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                connection.socket.sendall(b"x" * 4096)
            while chunk := connection.socket.recv(65536):
                received += chunk
        assert received == b"" or received.startswith(b"HTTP/1.1 400 ")
    # For its size, and not because it took too long.
    assert time.monotonic() - started < HEAD_TIMEOUT_SECONDS - 5


def test_too_many_headers_are_refused(gateways: list[GatewayProcess], team: Team) -> None:
    body = build_body()
    headers = [f"X-{number}: x" for number in range(120)]
    with open_raw_connection(gateways[0]) as connection:
        ((status, _, _),) = connection.exchange(build_head(team.alice.token, len(body), MODERN, *headers) + body)
        assert status == 400


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
        connection.assert_silent(1.5)
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
        # An incomplete claim is not executed, and a half-closed connection is closed.
        assert connection.socket.recv(1) == b""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    with open_raw_connection(gateways[0]) as connection:
        while time.monotonic() < deadline:
            (response,) = connection.exchange(build_tool_call(team.alice.token, tool="claim", sequence="gone"))
            number = json.loads(response[2])["result"]["structuredContent"]["number"]
            if number == 3:
                break
        # One complete request was sent whose response was not read; it counts, and the incomplete ones do not.
        assert number >= 2


def _read_head(gateway: Gateway, head: bytes) -> RequestHead:
    lines = head.decode().split("\r\n")[1:-2]
    headers = [(name.lower().encode(), value.strip().encode()) for name, _, value in (x.partition(":") for x in lines)]
    return gateway._mcp_endpoint.heads.read("POST", headers)


def test_the_calls_of_common_clients_are_answered_directly() -> None:
    gateway = Gateway(Settings.from_env({"DATABASE_URL": "postgresql://user@127.0.0.1:1/none"}))
    token = generate_token()
    extras = {
        "httpx": ("User-Agent: python-httpx2/2.9", "Accept-Encoding: gzip, deflate, br", "Connection: keep-alive"),
        "undici": ("user-agent: node", "accept-language: *", "sec-fetch-mode: cors", "accept-encoding: gzip, deflate"),
        "curl": ("User-Agent: curl/8.16.0",),
        "a proxy": ("X-Forwarded-For: 10.0.0.1, 10.0.0.2", "X-Request-Id: 7f-3", "Via: 1.1 vegur"),
    }
    for version in (MODERN, "2025-11-25", None):
        for lines in extras.values():
            head = _read_head(gateway, build_head(token, 300, version, *lines))
            assert head.rejection is None
            assert head.protocol is not None
    assert _read_head(gateway, build_head("lbus_x", 300)).token_fingerprint is None


def test_requests_without_a_known_token_are_not_cached() -> None:
    """The size of the caches depends on the tokens of the service, not on the requests."""
    gateway = Gateway(Settings.from_env({"DATABASE_URL": "postgresql://user@127.0.0.1:1/none"}))
    for _ in range(50):
        _read_head(gateway, build_head(generate_token(), 10))
    assert not gateway._mcp_endpoint.heads._cache
    token = generate_token()
    gateway.service.authenticator.cache._ctx_by_fingerprint[fingerprint(token)] = Ctx(1, 1, 1, 1, 1)
    for length in range(1, 50):
        _read_head(gateway, build_head(token, length, MODERN, f"X-Request-Id: {length}"))
    # Length and request id are not part of the cache key.
    assert len(gateway._mcp_endpoint.heads._cache) == 1
    for padding in (100, 3000):
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
            "x": "x" * padding,
        }
        params = {"name": "whoami", "arguments": {}, "_meta": meta}
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).encode()
        protocol = _read_head(gateway, build_head(token, len(body))).protocol
        assert protocol is not None
        assert gateway._mcp_endpoint._codec.parse_call(protocol, body) is not None
    assert len(gateway._mcp_endpoint._codec._valid_envelopes) == 1


def test_responses_keep_the_order_of_their_requests(database_url: str) -> None:
    """A call that arrives while another one is answered waits for its turn."""
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
                wait_until_locked(db)
                connection.socket.sendall(build_tool_call(team.alice.token))
                connection.assert_silent(0.3)
            first, second = connection.exchange(response_count=2)
        assert json.loads(first[2])["result"]["structuredContent"]["number"] == 1
        assert json.loads(second[2])["result"]["structuredContent"]["label"] == "alice"
    finally:
        db.close()


def test_a_declared_length_beyond_the_limit_is_answered_at_once(gateways: list[GatewayProcess], team: Team) -> None:
    """Before a byte of the body is sent, with and without a token."""
    for token in (team.bob.token, None):
        started = time.monotonic()
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        head = (
            f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n{authorization}Content-Type: application/json\r\n"
            "Content-Length: 1000000000\r\n\r\n"
        )
        address = urlsplit(gateways[0].url)
        with socket.create_connection((address.hostname, address.port), _TIMEOUT_SECONDS) as connection:
            connection.sendall(head.encode())
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
            assert received.startswith(b"HTTP/1.1 413" if token else b"HTTP/1.1 401"), received[:200]
            assert b"connection: close" in received.lower()
        # Not after the time in which the body had to come.
        assert time.monotonic() - started < request_body._TIMEOUT_SECONDS - 5
