"""A receiver of what processes send to the outside: an HTTP server that keeps every request."""

import gzip
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_TIMEOUT_SECONDS = 30.0


@dataclass
class WebhookServer:
    """What was received: the path and headers of each request as text, and its body as it was before packing."""

    url: str
    requests: list[tuple[str, bytes]] = field(default_factory=list)

    def bodies(self, path: str) -> list[bytes]:
        return [body for head, body in list(self.requests) if head.startswith(path)]

    def wait_until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.requests
            time.sleep(0.05)


@contextmanager
def running_webhook_server() -> Iterator[WebhookServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            packed = self.headers.get("Content-Encoding")
            if packed:
                body = gzip.decompress(body) if packed == "gzip" else zlib.decompress(body)
            received.requests.append((f"{self.path}\n{self.headers}", body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received = WebhookServer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
