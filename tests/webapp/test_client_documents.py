"""Documents of OAuth clients: how they are fetched, within which bounds, and what makes one unusable."""

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from bus.db import Database
from bus.notifications import guarded_http
from bus.tenancy import oauth_clients
from tests.webapp.oauth_requests import authorization_path
from tests.webapp.web_client import Browser
from webapp.oauth_server import client_documents, client_metadata, clients, redirect_uris
from webapp.oauth_server.client_metadata import InvalidClientMetadata

URL = "https://app.example/client.json"
DOCUMENT: dict[str, Any] = {"client_id": URL, "client_name": "App", "redirect_uris": ["http://127.0.0.1/cb"]}


class Host(http.server.ThreadingHTTPServer):
    """A server that answers each request with `answer`: status, headers and body."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: tuple[int, dict[str, str], bytes] = (200, {}, b"")
        self.requests: list[tuple[str, str | None]] = []

    def handle_error(self, *_: object) -> None:
        """Stay silent: a client that has read enough closes the connection."""

    def serve(self, document: object, status: int = 200, **headers: str) -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answer = (status, {"Content-Type": "application/json", **named}, body)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Host

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers["Host"]))
        status, headers, body = self.server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Answers the requests to https://app.example, without TLS."""
    server = Host()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    stream = guarded_http.stream

    @contextmanager
    def to_host(method: str, url: str, **options: Any) -> Iterator[Any]:
        assert url.startswith("https://app.example/")
        local = url.replace("https://app.example", f"http://127.0.0.1:{server.server_port}")
        with stream(method, local, **{**options, "allow_private": True}) as response:
            yield response

    monkeypatch.setattr(guarded_http, "stream", to_host)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_document_is_read_with_the_lifetime_that_its_server_allows(host: Host) -> None:
    host.serve(DOCUMENT)
    metadata, lifetime = client_documents.fetch(URL)
    assert (metadata.name, metadata.redirect_uris, lifetime) == ("App", ["http://127.0.0.1/cb"], timedelta(hours=1))
    for sent, kept in (("max-age=0", 300), ("public, max-age=7200", 7200), ("max-age=999999999", 86_400)):
        host.serve(DOCUMENT, Cache_Control=sent)
        assert client_documents.fetch(URL)[1] == timedelta(seconds=kept)


_UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "another client_id": ({"document": {**DOCUMENT, "client_id": f"{URL}?"}}, "not the address of the document"),
    "no client_id": ({"document": {"redirect_uris": ["http://127.0.0.1/cb"]}}, "not the address of the document"),
    "a secret": ({"document": {**DOCUMENT, "client_secret": "x"}}, "must be none"),
    "a method with a secret": (
        {"document": {**DOCUMENT, "token_endpoint_auth_method": "client_secret_post"}},
        "must be none",
    ),
    "no redirect URI": ({"document": {**DOCUMENT, "redirect_uris": []}}, "redirect_uris must be a list"),
    "a redirect URI without TLS": (
        {"document": {**DOCUMENT, "redirect_uris": ["http://app.example/cb"]}},
        "A redirect URI must begin",
    ),
    "a list": ({"document": [DOCUMENT]}, "is a JSON object"),
    "no JSON": ({"document": b"{"}, "is not JSON"),
    "deep JSON": ({"document": b"[" * 20_000}, "is not JSON"),
    "no UTF-8": ({"document": b'{"client_id": "\xff"}'}, "is not JSON"),
    "a page": ({"document": DOCUMENT, "Content_Type": "text/html"}, "not served as application/json"),
    "an error": ({"document": DOCUMENT, "status": 404}, "status 404"),
    "a redirect": (
        {"document": DOCUMENT, "status": 302, "Location": "http://169.254.169.254/latest"},
        "status 302",
    ),
}


def test_a_document_that_describes_no_usable_client_is_refused(host: Host) -> None:
    for name, (answer, message) in _UNUSABLE.items():
        host.serve(**answer)
        with pytest.raises(InvalidClientMetadata) as refused:
            client_documents.fetch(URL)
        assert message in refused.value.message, name
    # A redirect is not followed.
    assert {path for path, _ in host.requests} == {"/client.json"}


def test_ten_megabytes_are_not_read_to_their_end(host: Host) -> None:
    host.serve(b" " * 10_000_000)
    with pytest.raises(InvalidClientMetadata, match="more than 32000 bytes"):
        client_documents.fetch(URL)


def test_a_document_that_arrives_byte_by_byte_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_documents, "_TOTAL_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(client_documents, "_ALLOW_PRIVATE", True)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # It accepts the connection and never answers, not even the handshake of TLS.
        with pytest.raises(InvalidClientMetadata, match="does not answer"):
            client_documents.fetch(f"https://127.0.0.1:{silent.getsockname()[1]}/client.json")


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "fd00::1", "::ffff:192.168.0.1", "64:ff9b::a00:1"]
)
def test_a_private_address_is_never_reached(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(family, socket.SOCK_STREAM, 6, "", (address, 443))])
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was opened"))
    with pytest.raises(InvalidClientMetadata, match="not on the public Internet"):
        client_documents.fetch(URL)


def test_only_an_https_address_with_a_path_is_that_of_a_document() -> None:
    for url in (URL, "https://app.example:8443/a?b=c", "https://app.example/x/"):
        assert client_documents.is_document_url(url), url
    for url in (
        "",
        "app",
        "https://app.example",
        "https://app.example/",
        "http://app.example/x",
        "https://user@app.example/x",
        "https://app.example/x#y",
        "https://app.example/a/../b",
        "https://app.example/./b",
        "https:///x",
        "https://app.example:port/x",
        "https://app.example/x y",
        "https://app.example/\n",
        "https://äpp.example/x",
        "https://app.example\\@evil.example/x",
        "HTTPS://app.example/x",
        f"https://app.example/{'x' * 1000}",
    ):
        assert not client_documents.is_document_url(url), url


def test_a_copy_is_used_until_it_expires(ada: Browser, db: Database, host: Host) -> None:
    host.serve(DOCUMENT)
    path = authorization_path(client_id=URL, redirect_uri="http://127.0.0.1:1/cb")
    for _ in range(2):
        assert ada.get(path).status_code == 200
    assert len(host.requests) == 1
    with db.transaction() as conn:
        conn.execute("UPDATE oauth_client SET expires_at = clock_timestamp()")
        assert oauth_clients.find(conn, URL) is None
    host.serve({**DOCUMENT, "redirect_uris": ["http://127.0.0.1/other"]})
    page = ada.get(path)
    assert page.status_code == 400
    assert "is not one of App" in page.text
    assert len(host.requests) == 2


def test_an_address_causes_few_requests_to_other_servers(
    ada: Browser, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "_DOCUMENTS_PER_MINUTE", 2)
    host.serve(DOCUMENT)
    answers = [ada.get(authorization_path(client_id=f"{URL}?{number}")) for number in range(3)]
    assert [answer.status_code for answer in answers] == [400, 400, 429]
    assert len(host.requests) == 2


def test_few_threads_wait_for_other_servers_at_the_same_time(
    ada: Browser, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = threading.BoundedSemaphore(1)
    monkeypatch.setattr(clients, "_fetch_slots", slots)
    host.serve(DOCUMENT)
    with slots:
        refused = ada.get(authorization_path(client_id=URL))
    assert (refused.status_code, refused.headers["Retry-After"], host.requests) == (429, "5", [])
    # A fetch that fails gives its slot back.
    assert ada.get(authorization_path(client_id=f"{URL}?other")).status_code == 400
    assert ada.get(authorization_path(client_id=URL, redirect_uri="http://127.0.0.1/cb")).status_code == 200


def test_a_client_stores_little() -> None:
    uris = [f"https://app.example/{number}/{'x' * 1_000}" for number in range(6)]
    with pytest.raises(InvalidClientMetadata, match="more than 5000 characters together"):
        client_metadata.read({"redirect_uris": uris})
    assert client_metadata.read({"redirect_uris": uris[:4]}).redirect_uris == uris[:4]


@pytest.mark.parametrize("uri", ["mailto:a@evil.example", "tel:1", "sms:1", "intent://x/", "jar:https://x/"])
def test_a_code_is_not_handed_to_a_mail_or_telephone_program(uri: str) -> None:
    assert not redirect_uris.is_acceptable(uri)


def test_a_visitor_makes_the_service_fetch_nothing(stranger: Browser, host: Host) -> None:
    assert stranger.get(authorization_path(client_id=URL)).status_code == 303
    stranger.post("/oauth/token", data={"grant_type": "refresh_token", "client_id": URL, "refresh_token": "x"})
    assert host.requests == []


def test_a_port_may_differ_only_on_this_machine() -> None:
    for registered, requested, expected in (
        ("http://127.0.0.1/cb", "http://127.0.0.1:5/cb", True),
        ("http://localhost:1/cb", "http://localhost:2/cb", True),
        ("http://[::1]/cb", "http://[::1]:9/cb", True),
        ("http://127.0.0.1/cb", "http://127.0.0.1:5/cb/", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:5/cb?x", False),
        ("http://127.0.0.1/cb", "http://localhost:5/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:x/cb", False),
        ("https://app.example/cb", "https://app.example:5/cb", False),
        ("https://localhost/cb", "https://localhost:5/cb", False),
        ("cursor://cb", "cursor://cb", True),
    ):
        assert redirect_uris.matches(registered, requested) is expected, (registered, requested)
