"""A Redis of a test's own."""

import socket
from pathlib import Path

from cli.embedded import redis


class Queue:
    """A Redis of the test's own, which it may stop, kill and start again on the same port."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.home = home
        self.server: redis.Redis | None = None

    def start(self) -> str:
        self.server = redis.launch(self.home, port=self.port, log=self.home.with_suffix(".log"), fast=True)
        redis.wait(self.server)
        return self.server.url

    def stop(self) -> None:
        assert self.server is not None
        redis.stop(self.server)

    def kill(self) -> None:
        assert self.server is not None
        self.server.process.kill()
        self.server.process.wait()

    def end(self) -> None:
        """Stop it, if it runs."""
        if self.server is not None and self.server.process.poll() is None:
            self.stop()
