"""A Redis server for one test."""

import socket
from pathlib import Path

from cli.embedded import redis


class RedisServer:
    """A Redis server that a test may stop, kill and start again on the same port."""

    def __init__(self, data_dir: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.data_dir = data_dir
        self.server: redis.RedisServer | None = None

    def start(self) -> str:
        self.server = redis.launch(
            self.data_dir, port=self.port, log_path=self.data_dir.with_suffix(".log"), ephemeral=True
        )
        redis.wait_until_ready(self.server)
        return self.server.url

    def stop(self) -> None:
        assert self.server is not None
        redis.stop(self.server)

    def kill(self) -> None:
        assert self.server is not None
        self.server.process.kill()
        self.server.process.wait()

    def stop_if_running(self) -> None:
        """Stop the server, if it runs."""
        if self.server is not None and self.server.process.poll() is None:
            self.stop()
