"""Webhooks: what a real receiver gets, and where they never lead."""

import base64
import hashlib
import hmac
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from bus.notifications.outbox import Notice
from workers import webhooks

_SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()


@dataclass
class Receiver:
    """A real HTTP server that answers as it is told and keeps what it was sent."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"thank you"
    pause: float = 0.0
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    port: int = 0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            made.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            time.sleep(made.pause)
            self.send_response(made.status)
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(made.body)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def _notice(target: str, **content: Any) -> Notice:
    return Notice(7, "escalation", "webhook", target, content, datetime(2026, 1, 2, tzinfo=UTC), 1, _SECRET)


def test_a_receiver_can_check_who_sent_it_and_when(receiver: Receiver) -> None:
    sent = webhooks.send(_notice(f"http://127.0.0.1:{receiver.port}/hook?a=b", subject="Grüße\n"), allow_private=True)
    assert (sent.delivered, sent.detail) == (True, "200 thank you")
    ((path, headers, body),) = receiver.got
    assert path == "/hook?a=b"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert json.loads(body) == {
        "type": "escalation",
        "timestamp": "2026-01-02T00:00:00+00:00",
        "data": {"subject": "Grüße\n"},
    }
    # As Standard Webhooks describes it, computed here from what arrived.
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(b"k" * 24, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["webhook-id"] == "notice_7"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60


@pytest.mark.parametrize(
    ("status", "delivered", "final"), [(204, True, False), (500, False, False), (410, False, True)]
)
def test_the_answer_decides(receiver: Receiver, status: int, delivered: bool, final: bool) -> None:
    receiver.status, receiver.body = status, b""
    sent = webhooks.send(_notice(f"http://127.0.0.1:{receiver.port}"), allow_private=True)
    assert (sent.delivered, sent.permanent) == (delivered, final)
    assert sent.detail.startswith(str(status))


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.status, receiver.headers = 302, {"Location": f"http://127.0.0.1:{receiver.port}/elsewhere"}
    sent = webhooks.send(_notice(f"http://127.0.0.1:{receiver.port}/"), allow_private=True)
    assert not sent.delivered
    assert len(receiver.got) == 1


def test_of_a_long_answer_little_is_kept(receiver: Receiver) -> None:
    receiver.body = b"<script>\r\n" + b"x" * 5_000_000
    sent = webhooks.send(_notice(f"http://127.0.0.1:{receiver.port}/"), allow_private=True)
    assert sent.delivered
    assert len(sent.detail) < 250
    assert "\n" not in sent.detail


def test_a_receiver_that_does_not_answer_is_left_after_a_while(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "_TIMEOUT_SECONDS", 0.3)
    receiver.pause = 1.5
    sent = webhooks.send(_notice(f"http://127.0.0.1:{receiver.port}/"), allow_private=True)
    assert not sent.delivered
    assert "Timeout" in sent.detail


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["headers", "body"])
def test_a_receiver_that_answers_byte_by_byte_is_left_after_a_while(
    monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(webhooks, "_LONGEST_SECONDS", 0.5)
    left = threading.Event()

    def drip(server: socket.socket) -> None:
        caller, _ = server.accept()
        with caller:
            caller.recv(65536)
            caller.sendall(answer)
            caller.settimeout(0.05)
            # As slow as it likes, but never for longer than each read waits.
            for _ in range(200):
                try:
                    caller.sendall(b"x")
                    if caller.recv(65536) == b"":
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
            else:
                return
        left.set()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        started = time.monotonic()
        webhooks.send(_notice(f"http://127.0.0.1:{server.getsockname()[1]}/"), allow_private=True)
        assert time.monotonic() - started < 5
        thread.join()
    assert left.is_set()


def test_nobody_listening_is_no_crash() -> None:
    sent = webhooks.send(_notice("http://127.0.0.1:9/"), allow_private=True)
    assert (sent.delivered, sent.permanent) == (False, False)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "10.0.0.1", "192.168.1.1", "172.16.0.9", "169.254.169.254", "0.0.0.0", "[::1]",
     "[::ffff:127.0.0.1]", "[fe80::1]", "[fd00::1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "224.0.0.1", "100.64.0.1",
     "2130706433", "0x7f.1", "[64:ff9b:1::7f00:1]", "[fec0::1]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]", "192.0.0.8"],
)  # fmt: skip
def test_a_private_network_is_never_reached(receiver: Receiver, host: str) -> None:
    sent = webhooks.send(_notice(f"http://{host}:{receiver.port}/"), allow_private=False)
    assert (sent.delivered, sent.permanent) == (False, True) or "no address" in sent.detail, sent
    assert receiver.got == []


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_a_public_address_is_allowed(address: str) -> None:
    assert webhooks.resolve_address(address, 443, allow_private=False) == address


def test_the_address_that_was_checked_is_the_one_that_is_reached(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is asked for twice may answer twice; so it is asked for once."""
    asked: list[str] = []
    real = webhooks.socket.getaddrinfo

    def changing(host: str, *args: Any, **kwargs: Any) -> list[Any]:
        if host != "rebinding.example":
            return real(host, *args, **kwargs)
        asked.append(host)
        return real("127.0.0.1" if len(asked) == 1 else "127.0.0.2", *args, **kwargs)

    monkeypatch.setattr(webhooks.socket, "getaddrinfo", changing)
    sent = webhooks.send(_notice(f"http://rebinding.example:{receiver.port}/"), allow_private=True)
    assert sent.delivered, sent
    assert asked == ["rebinding.example"]
    assert receiver.got[0][1]["host"] == f"rebinding.example:{receiver.port}"
