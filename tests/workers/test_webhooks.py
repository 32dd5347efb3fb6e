"""Webhooks as a real HTTP server receives them, and the networks that they never reach."""

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
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from bus.notifications import guarded_http
from bus.notifications.outbox import OutboxMessage
from tests.concurrency import stretched
from workers import webhooks

_SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()


@dataclass
class Receiver:
    """A real HTTP server with a configurable response that keeps the requests it receives."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"thank you"
    pause: float = 0.0
    closing: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    port: int = 0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            receiver.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            receiver.closing.wait(receiver.pause)
            self.send_response(receiver.status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(receiver.body)

        def do_GET(self) -> None:
            # A followed redirect may become a GET.
            self.do_POST()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield receiver
    receiver.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()


def _notice(target: str, **content: Any) -> OutboxMessage:
    return OutboxMessage(7, "escalation", "webhook", target, content, datetime(2026, 1, 2, tzinfo=UTC), 1, _SECRET)


def _compute_signature(headers: dict[str, str], body: bytes, key: bytes) -> str:
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def test_a_receiver_can_verify_the_signature_and_the_time(receiver: Receiver) -> None:
    result = webhooks.send(_notice(f"http://127.0.0.1:{receiver.port}/hook?a=b", subject="Grüße\n"), allow_private=True)
    assert (result.delivered, result.detail) == (True, "200 thank you")
    ((path, headers, body),) = receiver.requests
    assert path == "/hook?a=b"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert json.loads(body) == {
        "type": "escalation",
        "timestamp": "2026-01-02T00:00:00+00:00",
        "data": {"subject": "Grüße\n"},
    }
    assert headers["webhook-signature"] == _compute_signature(headers, body, b"k" * 24)
    assert headers["webhook-id"] == "notice_7"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    # A receiver that uses the library of Standard Webhooks.
    assert Webhook(_SECRET).verify(body, headers) == json.loads(body)
    with pytest.raises(WebhookVerificationError):
        Webhook(_SECRET).verify(body + b" ", headers)


@given(st.integers(1), st.timedeltas(timedelta(0), timedelta(days=30_000)), st.text(), st.binary(min_size=1))
def test_the_signature_is_the_hmac_over_id_time_and_body(notice_id: int, age: timedelta, text: str, key: bytes) -> None:
    """Receivers that compute it themselves get the headers and bytes of earlier versions."""
    sent_at = datetime(2020, 1, 1, tzinfo=UTC) + age
    body = json.dumps({"data": text}, ensure_ascii=False).encode()
    secret = "whsec_" + base64.b64encode(key).decode()
    headers = webhooks.build_signature_headers(notice_id, sent_at, body, secret)
    assert list(headers) == ["webhook-id", "webhook-timestamp", "webhook-signature"]
    assert headers["webhook-id"] == f"notice_{notice_id}"
    assert headers["webhook-timestamp"] == str(int(sent_at.timestamp()))
    assert headers["webhook-signature"] == _compute_signature(headers, body, key)


@pytest.mark.parametrize(
    ("status", "delivered", "permanent"), [(204, True, False), (500, False, False), (410, False, True)]
)
def test_the_status_decides_whether_to_retry(receiver: Receiver, status: int, delivered: bool, permanent: bool) -> None:
    receiver.status, receiver.body = status, b""
    result = webhooks.send(_notice(f"http://127.0.0.1:{receiver.port}"), allow_private=True)
    assert (result.delivered, result.permanent) == (delivered, permanent)
    assert result.detail.startswith(str(status))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    receiver.status, receiver.headers = status, {"Location": f"http://127.0.0.1:{receiver.port}/elsewhere"}
    result = webhooks.send(_notice(f"http://127.0.0.1:{receiver.port}/"), allow_private=True)
    assert (result.delivered, result.detail) == (False, f"{status} thank you")
    assert [path for path, _, _ in receiver.requests] == ["/"]


def test_only_an_excerpt_of_a_long_response_is_kept(receiver: Receiver) -> None:
    receiver.body = b"<script>\r\n" + b"x" * 5_000_000
    result = webhooks.send(_notice(f"http://127.0.0.1:{receiver.port}/"), allow_private=True)
    assert result.delivered
    assert len(result.detail) < 250
    assert "\n" not in result.detail


def test_a_receiver_that_does_not_respond_times_out(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "_TIMEOUT_SECONDS", 0.3)
    receiver.pause = 1.5
    result = webhooks.send(_notice(f"http://127.0.0.1:{receiver.port}/"), allow_private=True)
    assert not result.delivered
    assert "Timeout" in result.detail


@pytest.mark.parametrize("response", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["headers", "body"])
def test_a_receiver_that_responds_byte_by_byte_is_cut_off(monkeypatch: pytest.MonkeyPatch, response: bytes) -> None:
    monkeypatch.setattr(webhooks, "_TOTAL_TIMEOUT_SECONDS", 0.5)
    disconnected = threading.Event()

    def drip(server: socket.socket) -> None:
        caller, _ = server.accept()
        with caller:
            caller.recv(65536)
            caller.sendall(response)
            caller.settimeout(0.05)
            # Slow, but each pause is shorter than the timeout of a read.
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
        disconnected.set()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        started = time.monotonic()
        webhooks.send(_notice(f"http://127.0.0.1:{server.getsockname()[1]}/"), allow_private=True)
        assert time.monotonic() - started < stretched(5)
        thread.join()
    assert disconnected.is_set()


def test_a_refused_connection_is_retried() -> None:
    result = webhooks.send(_notice("http://127.0.0.1:9/"), allow_private=True)
    assert (result.delivered, result.permanent) == (False, False)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "10.0.0.1", "192.168.1.1", "172.16.0.9", "169.254.169.254", "0.0.0.0", "[::1]",
     "[::ffff:127.0.0.1]", "[fe80::1]", "[fd00::1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "224.0.0.1", "100.64.0.1",
     "2130706433", "0x7f.1", "[64:ff9b:1::7f00:1]", "[fec0::1]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]", "192.0.0.8"],
)  # fmt: skip
def test_a_private_network_is_never_reached(receiver: Receiver, host: str) -> None:
    result = webhooks.send(_notice(f"http://{host}:{receiver.port}/"), allow_private=False)
    assert (result.delivered, result.permanent) == (False, True) or "no address" in result.detail, result
    assert receiver.requests == []


@pytest.mark.parametrize(
    "address",
    # The last three embed the first: mapped, translated and 6to4.
    ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:93.184.215.14", "64:ff9b::5db8:d70e",
     "2002:5db8:d70e::1"],
)  # fmt: skip
def test_a_public_address_is_allowed(address: str) -> None:
    assert guarded_http.resolve_address(address, 443, allow_private=False) == address


def test_the_connection_goes_to_the_address_that_was_checked(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second resolution of the name could return another address, so there is only one."""
    resolved: list[str] = []
    getaddrinfo = socket.getaddrinfo

    def rebinding_getaddrinfo(host: str, *args: Any, **kwargs: Any) -> list[Any]:
        if host != "rebinding.example":
            return getaddrinfo(host, *args, **kwargs)
        resolved.append(host)
        return getaddrinfo("127.0.0.1" if len(resolved) == 1 else "127.0.0.2", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding_getaddrinfo)
    result = webhooks.send(_notice(f"http://rebinding.example:{receiver.port}/"), allow_private=True)
    assert result.delivered, result
    assert resolved == ["rebinding.example"]
    assert receiver.requests[0][1]["host"] == f"rebinding.example:{receiver.port}"
