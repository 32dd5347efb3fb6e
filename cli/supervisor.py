"""The processes of the Procfile: started, watched until they answer, restarted when they end, stopped."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cli.embedded import child
from cli.exit_codes import CliError
from cli.files import fresh_log
from cli.procfile import ProcessType

# Those that serve HTTP, and so need a port and are asked whether they are well.
SERVING = ("web", "gateway")
_GRACE_SECONDS = 10.0
_READY_SECONDS = 60.0
_LONGEST_PAUSE = 30.0
# A process that has lived this long was well; its next restart is immediate again.
_STEADY_SECONDS = 60.0


class PortLostError(Exception):
    """A process ended because somebody else took its port first; other ports help."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.port = port


@dataclass
class Process:
    """A process of the Procfile, over all its restarts."""

    type: ProcessType
    env: dict[str, str]
    cwd: Path
    log: Path
    port: int | None
    running: subprocess.Popen[bytes]
    started: float
    pause: float = 0.0
    restart_at: float | None = field(default=None)


def start(kind: ProcessType, *, cwd: Path, logs: Path, env: Mapping[str, str], port: int | None) -> Process:
    """Start it; does not wait for it. `env` is what the bus needs; the user's own environment is below it."""
    # `python` and `llm-bus` of the Procfile are those that we run as ourselves.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    whole = {**os.environ, "PYTHONUNBUFFERED": "1", **env, "PATH": path}
    if port is not None:
        whole["PORT"] = str(port)
    log = fresh_log(logs, kind.name)
    return Process(kind, whole, cwd, log, port, _spawn(kind, cwd, log, whole), time.monotonic())


def wait(process: Process, tick: Callable[[], None]) -> None:
    """Return when the process answers /healthz; one that serves nothing only has to be alive.

    Raises:
        PortLostError: its port was taken meanwhile.
        CliError: it ended or did not answer; the message ends with its log.
    """
    if process.port is None:
        if process.running.poll() is None:
            return
    elif child.wait_until(lambda: _is_well(process), process.running, _READY_SECONDS, tick):
        return
    ended = process.running.poll()
    if ended is not None and process.port is not None and child.lost_its_port(process.port, process.log):
        raise PortLostError(process.port)
    happened = f"ended with code {ended}" if ended is not None else f"did not answer in {_READY_SECONDS:.0f} s"
    raise CliError(f"{process.type.name} {happened}. Its log, {process.log}, ends with:{child.tail(process.log)}")


def revive(process: Process, say: Callable[[str], None]) -> bool:
    """Restart the process if it has ended and its pause is over. Returns whether it was restarted."""
    code = process.running.poll()
    now = time.monotonic()
    if code is None:
        return False
    if process.restart_at is None:
        if now - process.started > _STEADY_SECONDS:
            process.pause = 0.0
        process.restart_at = now + process.pause
        wait_for = f" in {process.pause:.0f} s" if process.pause else ""
        say(f"{process.type.name} ended with code {code}; starting it again{wait_for}. Log: {process.log}")
        process.pause = min(_LONGEST_PAUSE, max(1.0, process.pause * 2))
    if now < process.restart_at:
        return False
    process.restart_at = None
    process.started = now
    process.running = _spawn(process.type, process.cwd, process.log, process.env)
    return True


def stop_all(processes: list[Process]) -> None:
    """Ask all of them to finish, give them ten seconds together, kill what is left of their groups."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.running.terminate()
    deadline = time.monotonic() + _GRACE_SECONDS
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.running.wait(max(0.0, deadline - time.monotonic()))
        child.stop(process.running, ())


def _spawn(kind: ProcessType, cwd: Path, log: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return child.spawn(kind.command, log=log, death_signal=signal.SIGTERM, env=env, cwd=cwd)


def _is_well(process: Process) -> bool:
    """It listens itself (another bus may answer on a port that it is about to lose) and says it is well."""
    assert process.port is not None
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        if connection.getresponse().status != 200:
            return False
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return _listens(process.running.pid, process.port)


def _listens(pid: int, port: int) -> bool:
    try:
        leader = psutil.Process(pid)
        family = [leader, *leader.children(recursive=True)]
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for process in family
            for connection in process.net_connections("tcp")
        )
    except psutil.AccessDenied:
        # Not every system lets us look; then the answer has to do.
        return True
    except psutil.Error:
        return False
