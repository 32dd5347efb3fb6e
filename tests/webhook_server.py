"""An HTTP server that keeps every request, for tests of outgoing calls."""

import gzip
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.concurrency import wait_until

_TIMEOUT_SECONDS = 120.0


@dataclass
class WebhookServer:
    """The received requests: path and headers as text, and the uncompressed body."""

    url: str
    requests: list[tuple[str, bytes]] = field(default_factory=list)

    def bodies(self, path: str) -> list[bytes]:
        return [body for head, body in list(self.requests) if head.startswith(path)]

    def wait_until(self, condition: Callable[[], object]) -> None:
        wait_until(condition, _TIMEOUT_SECONDS, describe=lambda: str(self.requests))


@contextmanager
def running_webhook_server() -> Iterator[WebhookServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            encoding = self.headers.get("Content-Encoding")
            if encoding:
                body = gzip.decompress(body) if encoding == "gzip" else zlib.decompress(body)
            webhook_server.requests.append((f"{self.path}\n{self.headers}", body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    webhook_server = WebhookServer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield webhook_server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
