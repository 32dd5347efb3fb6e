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
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h11
import pytest

from bus.db import Database
from bus.settings import Settings
from mcp_gateway.app import Gateway
from mcp_gateway.plain import Heads
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.processes import Process, running
from tests.mcp_gateway.wire import ACCEPT, MODERN

_PATIENCE = 20.0


def _head(token: str, length: int, era: str | None = MODERN, *more: str, tool: str = "whoami") -> bytes:
    lines = [
        "POST /mcp HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {token}",
        f"Accept: {ACCEPT}",
        "Content-Type: application/json",
        *([f"MCP-Protocol-Version: {era}", "Mcp-Method: tools/call", f"Mcp-Name: {tool}"] if era == MODERN else []),
        *([f"MCP-Protocol-Version: {era}"] if era not in (None, MODERN) else []),
        *([f"Content-Length: {length}"] if length >= 0 else []),
        *more,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def _body(era: str | None = MODERN, tool: str = "whoami", **arguments: Any) -> bytes:
    params: dict[str, Any] = {"name": tool, "arguments": arguments}
    if era == MODERN:
        params["_meta"] = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
    return json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).encode()


def _usual(token: str, era: str | None = MODERN, tool: str = "whoami", **arguments: Any) -> bytes:
    body = _body(era, tool, **arguments)
    return _head(token, len(body), era, tool=tool) + body


@dataclass
class Line:
    """One connection, read with h11's client."""

    socket: socket.socket
    http: h11.Connection = field(default_factory=lambda: h11.Connection(h11.CLIENT))

    def ask(self, *pieces: bytes, answers: int = 1, method: str = "POST") -> list[Any]:
        """Send bytes, piece by piece, and return so many answers; fewer where the server closed."""
        for number, piece in enumerate(pieces):
            if number:
                time.sleep(0.03)
            self.socket.sendall(piece)
        return [answer for _ in range(answers) if (answer := self._answer(method)) is not None]

    def _answer(self, method: str) -> Any:
        http = self.http
        # h11 is told that the request was sent, since it reads an answer only to a request.
        http.send(h11.Request(method=method, target="/mcp", headers=[("host", "x")]))
        http.send(h11.EndOfMessage())
        head, body = None, b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                try:
                    http.receive_data(self.socket.recv(65536))
                except ConnectionError:
                    http.receive_data(b"")
            elif isinstance(event, h11.InformationalResponse):
                assert event.status_code == 100
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                if http.states[h11.SERVER] is h11.DONE:
                    http.start_next_cycle()
                headers = [header for header in head.headers.raw_items() if header[0] != b"date"]
                return head.status_code, headers, body
            else:
                return None

    def is_open(self, token: str) -> bool:
        """Whether the connection still answers."""
        if self.http.states[h11.SERVER] is not h11.IDLE:
            return False
        try:
            (answer,) = self.ask(_usual(token)) or [None]
        except (ConnectionError, h11.RemoteProtocolError):
            return False
        return answer is not None and answer[0] == 200


@contextmanager
def _line(process: Process) -> Iterator[Line]:
    where = urlsplit(process.url)
    with socket.create_connection((where.hostname, where.port), _PATIENCE) as opened:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Line(opened)


@pytest.fixture(scope="module")
def both(shared_database_url: str) -> Iterator[tuple[Process, Process]]:
    """A gateway that answers plain requests itself, and one that leaves everything to hypercorn and the SDK."""
    with running(shared_database_url) as (fast,), running(shared_database_url, GATEWAY_FAST_PATH="0") as (slow,):
        yield fast, slow


def _broken(token: str, era: str | None) -> bytes:
    body = _body(era).replace(b'"_meta": {', b'"_meta": {"x": "\xff", ')
    return _head(token, len(body), era) + body


def _odd(token: str, era: str | None) -> dict[str, tuple[list[bytes], int]]:
    """Requests that differ from a usual one on the wire, in pieces, and how many answers they get at most."""
    body = _body(era)
    usual = _head(token, len(body), era)
    chunked = _head(token, -1, era, "Transfer-Encoding: chunked")
    whole = usual + body
    other = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "nonsense"}).encode()
    return {
        "usual": ([whole], 1),
        "body after its head": ([usual, body], 1),
        "cut in the head": ([whole[:40], whole[40:]], 1),
        "cut in the line ends": ([usual[:-2], usual[-2:] + body], 1),
        "cut in the body": ([whole[:-9], whole[-9:]], 1),
        "byte after byte at the end": ([usual, *(body[n : n + 1] for n in range(9)), body[9:]], 1),
        "three at once": ([whole * 3], 3),
        "three, cut in the second": ([whole + whole[:50], whole[50:] + whole], 3),
        "plain, other, plain": ([whole + _head(token, len(other), era) + other + whole], 3),
        "an empty line before": ([b"\r\n" + whole], 1),
        "bare line feeds": ([usual.replace(b"\r\n", b"\n") + body], 1),
        "a folded header": ([_head(token, len(body), era, "X-Long: a\r\n b") + body], 1),
        "names in capitals": ([usual.replace(b"Accept", b"ACCEPT") + body], 1),
        "no blank after a colon": ([usual.replace(b"Accept: ", b"Accept:") + body], 1),
        "blanks around a value": ([usual.replace(b"Accept: ", b"Accept:  \t ") + body], 1),
        "a blank before a colon": ([usual.replace(b"Accept:", b"Accept :") + body], 1),
        "an empty value": ([_head(token, len(body), era, "X-Empty:") + body], 1),
        "a value in Latin-1": ([_head(token, len(body), era).replace(b"Host", b"X-A: \xe9\r\nHost") + body], 1),
        "a control character": ([_head(token, len(body), era, "X-A: a\x01b") + body], 1),
        "a nul": ([_head(token, len(body), era, "X-A: a\x00b") + body], 1),
        "HTTP/1.0": ([whole.replace(b"HTTP/1.1", b"HTTP/1.0")], 1),
        "HTTP/1.2": ([whole.replace(b"HTTP/1.1", b"HTTP/1.2")], 1),
        "not HTTP": ([b"hello\r\n\r\n"], 1),
        "a method in small letters": ([whole.replace(b"POST", b"post")], 1),
        "a whole address": ([whole.replace(b" /mcp ", b" http://localhost/mcp ")], 1),
        "a slash at the end": ([whole.replace(b" /mcp ", b" /mcp/ ")], 1),
        "a query": ([whole.replace(b" /mcp ", b" /mcp?x=1 ")], 1),
        "an escaped path": ([whole.replace(b" /mcp ", b" /m%63p ")], 1),
        "another path": ([whole.replace(b" /mcp ", b" /nowhere ")], 1),
        "close": ([_head(token, len(body), era, "Connection: close") + body], 1),
        "keep-alive": ([_head(token, len(body), era, "Connection: keep-alive") + body], 1),
        "Keep-Alive, close": ([_head(token, len(body), era, "Connection: Keep-Alive, close") + body], 1),
        "upgrade to h2c": (
            [_head(token, len(body), era, "Connection: upgrade, http2-settings", "Upgrade: h2c") + body],
            1,
        ),
        "expect": ([_head(token, len(body), era, "Expect: 100-continue"), body], 1),
        "chunked": ([chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)], 1),
        "chunked and a length": (
            [_head(token, len(body), era, "Transfer-Encoding: chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)],
            1,
        ),
        "chunked, but as long as it says": (
            [_head(token, len(body), era, "Transfer-Encoding: chunked") + body, b"\r\n\r\n"],
            1,
        ),
        "a whole one in the header of another": ([b"POST /nowhere HTTP/1.1\r\nX-A: ", whole], 1),
        "two lengths, alike": ([_head(token, len(body), era, f"Content-Length: {len(body)}") + body], 1),
        "two lengths": ([_head(token, len(body), era, "Content-Length: 3") + body], 1),
        "two lengths in one": ([usual.replace(b"Length: ", b"Length: 3, ") + body], 1),
        "a length with a sign": ([usual.replace(b"Length: ", b"Length: +") + body], 1),
        "a length with a nought": ([usual.replace(b"Length: ", b"Length: 0") + body], 1),
        "no length": ([_head(token, -1, era)], 1),
        "a body of nothing": ([_head(token, 0, era)], 1),
        "a body that is too short": ([_head(token, len(body) - 3, era) + body[:-3]], 1),
        "no host": ([usual.replace(b"Host: localhost\r\n", b"") + body], 1),
        "two hosts": ([_head(token, len(body), era, "Host: localhost") + body], 1),
        "another host": ([usual.replace(b"Host: localhost", b"Host: evil.example") + body], 1),
        "another origin": ([_head(token, len(body), era, "Origin: http://evil.example") + body], 1),
        "two tokens": ([_head(token, len(body), era, f"Authorization: Bearer {token}") + body], 1),
        "another token": ([whole.replace(token.encode(), token[:-1].encode() + b"~")], 1),
        "another scheme": ([whole.replace(b"Bearer", b"Basic")], 1),
        "a scheme in small letters": ([whole.replace(b"Bearer", b"bearer")], 1),
        "not UTF-8": (
            [_head(token, len(body) + 8, era) + body.replace(b'"params": {', b'"params": {"_": "\xff", ')],
            1,
        ),
        "not UTF-8 in the envelope": ([_broken(token, era)], 1),
        "an encoded body": ([_head(token, len(body), era, "Content-Encoding: gzip") + body], 1),
        "a large head": ([_head(token, len(body), era, f"X-Large: {'x' * 12_000}") + body], 1),
        "a head that is too large": ([_head(token, len(body), era, f"X-Large: {'x' * 200_000}") + body], 1),
    }


_NAMES = sorted(_odd("lbus_", MODERN))


@pytest.mark.parametrize("era", [MODERN, "2025-06-18", None])
@pytest.mark.parametrize("name", _NAMES)
def test_what_is_odd_on_the_wire_is_answered_alike(
    both: tuple[Process, Process], team: Team, name: str, era: str | None
) -> None:
    token = team.alice.token
    pieces, answers = _odd(token, era)[name]
    seen = []
    for process in both:
        with _line(process) as line:
            # The gateway has met the token, so that the first request is as plain as it can be.
            assert line.ask(_usual(token))[0][0] == 200
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
    whole = _usual(team.alice.token, era, "whoami")
    with _line(gateways[0]) as line:
        (expected,) = line.ask(whole)
        for cut in range(1, len(whole), 13):
            assert line.ask(whole[:cut], whole[cut:]) == [expected], cut


def test_a_slow_body_is_waited_for(gateways: list[Process], team: Team) -> None:
    body = _body()
    with _line(gateways[0]) as line:
        line.ask(_usual(team.alice.token))
        line.socket.sendall(_head(team.alice.token, len(body)) + body[:10])
        time.sleep(1.5)
        assert line.ask(body[10:])[0][0] == 200
        assert line.is_open(team.alice.token)


def test_a_client_that_goes_away_in_the_middle_takes_nobody_along(gateways: list[Process], team: Team) -> None:
    body = _body(tool="claim", sequence="gone")
    whole = _head(team.alice.token, len(body), tool="claim") + body
    for cut in (10, len(whole) - len(body), len(whole) - 1, len(whole)):
        with _line(gateways[0]) as line:
            line.socket.sendall(whole[:cut])
    with _line(gateways[0]) as line:
        line.socket.sendall(whole[:-1])
        line.socket.shutdown(socket.SHUT_WR)
        # The half of a claim is no claim.
        assert line.ask()[0][0] == 413
    deadline = time.monotonic() + _PATIENCE
    with _line(gateways[0]) as line:
        while time.monotonic() < deadline:
            (answer,) = line.ask(_usual(team.alice.token, tool="claim", sequence="gone"))
            number = json.loads(answer[2])["result"]["structuredContent"]["number"]
            if number == 3:
                break
        # One whole request was sent and nobody read its answer; it counts, and nothing else does.
        assert number >= 2


def test_the_heads_that_clients_send_are_plain() -> None:
    """Else the tests above would compare hypercorn with itself."""
    from bus.rules.tokens import mint

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
            head = _head(token, 300, era, *lines)
            found = heads.read(head)
            assert found is not None, head
            assert found[0] == 300
            assert heads.read(head) == found
    for head in (_head(token, 300, MODERN, "Connection: close"), _head(token, 0), _head("lbus_x", 300), b"\r\n\r\n"):
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
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> Any:
        return popen([sys.executable, "-c", _SHORT], **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tests.mcp_gateway.processes.subprocess.Popen", start)
        context = running(shared_database_url)
        (process,) = context.__enter__()
    yield process
    context.__exit__(None, None, None)


@pytest.mark.parametrize("path", [b" /mcp ", b" /mcp/ "])
def test_a_connection_is_closed_when_it_was_idle_and_not_while_it_is_used(
    hasty: Process, team: Team, path: bytes
) -> None:
    """Whoever answers: the second path is hypercorn's."""
    with _line(hasty) as line:
        for _ in range(8):
            assert line.ask(_usual(team.alice.token).replace(b" /mcp ", path))[0][0] == 200
            time.sleep(0.5)
        line.socket.settimeout(_PATIENCE)
        assert line.socket.recv(1) == b""


def test_calls_that_take_longer_than_idling_may_are_all_answered(
    hasty: Process, team: Team, served_db: Database
) -> None:
    with _line(hasty) as line:
        assert line.ask(_usual(team.alice.token))[0][0] == 200
        with served_db.write() as conn:
            conn.one("SELECT bus_lock_clock(%s)", (team.project_id,))
            line.socket.sendall(_usual(team.alice.token, tool="claim", sequence="adr") * 3)
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
            with _line(process) as line:
                assert line.ask(_usual(team.alice.token))[0][0] == 200
                with db.write() as conn:
                    conn.one("SELECT bus_lock_clock(%s)", (team.project_id,))
                    line.socket.sendall(_usual(team.alice.token, tool="claim", sequence="adr"))
                    _wait_until_locked(db)
                    # Zero seconds to linger: closing sends a reset.
                    line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    line.socket.close()
                    time.sleep(0.2)
            with _line(process) as line:
                assert line.is_open(team.alice.token)
            # The server lets go of what its client has closed.
            descriptors = Path(f"/proc/{process.popen.pid}/fd")
            lines = [socket.create_connection(("127.0.0.1", urlsplit(process.url).port), _PATIENCE) for _ in range(30)]
            for opened in lines:
                opened.sendall(_usual(team.alice.token))
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
    whole = _usual(team.alice.token)
    with running(database_url) as (process,), _line(process) as line:
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
    from bus.rules.tokens import fingerprint, mint

    gateway = Gateway(Settings.from_env({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}))
    heads = Heads(gateway)
    assert all(heads.read(_head(mint(), length)) is not None for length in range(1, 50))
    assert not heads._known
    token = mint()
    gateway.service.callers._known[fingerprint(token)] = Ctx(1, 1, 1, 1, 1)
    assert heads.read(_head(token, 10)) is not None
    assert len(heads._known) == 1
    # A tool that there is not, at length, and a head that no agent sends.
    assert heads.read(_head(token, 10, tool="x" * 2000)) is None
    assert heads.read(_head(token, 10, MODERN, f"X-Long: {'x' * 5000}")) is None
    assert gateway._fast is not None
    for padding in (100, 3000):
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
            "x": "x" * padding,
        }
        params = {"name": "whoami", "arguments": {}, "_meta": meta}
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).encode()
        assert gateway._fast.recognise(heads.read(_head(token, len(body)))[1].spoken, body) is not None
    assert len(gateway._fast._envelopes) == 1


def test_what_is_under_way_at_the_end_is_answered(database_url: str) -> None:
    """A plain call that waits for a lock while the process is told to stop gets its answer first."""
    from tests.mcp_gateway.conftest import make_team

    db = Database(database_url, size=2)
    team = make_team(db)
    answers: list[Any] = []
    try:
        with running(database_url) as (process,), _line(process) as line, _line(process) as idle:
            assert line.ask(_usual(team.alice.token))[0][0] == 200
            assert idle.ask(_usual(team.alice.token))[0][0] == 200
            with db.write() as conn:
                conn.one("SELECT bus_lock_clock(%s)", (team.project_id,))
                whole = _usual(team.alice.token, tool="claim", sequence="adr")
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
    body = _body(tool="claim", sequence="adr")
    head = _head(team.alice.token, -1, MODERN, "Transfer-Encoding: chunked", tool="claim")
    try:
        with running(database_url) as (process,), _line(process) as line:
            assert line.ask(_usual(team.alice.token))[0][0] == 200
            with db.write() as conn:
                conn.one("SELECT bus_lock_clock(%s)", (team.project_id,))
                line.socket.sendall(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
                _wait_until_locked(db)
                line.socket.sendall(_usual(team.alice.token))
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
