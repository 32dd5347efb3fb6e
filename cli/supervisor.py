"""Supervision of the Procfile's processes: start, readiness, restart, stop."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from cli.embedded import child
from cli.exit_codes import CliError
from cli.files import start_new_log
from cli.procfile import ProcessType
from cli.restart_schedule import RestartSchedule
from cli.settings import MIGRATION_DATABASE_URL

# They serve HTTP, so they get a port and are ready when /healthz responds.
HTTP_PROCESS_NAMES = ("web", "gateway")
_STOP_TIMEOUT_SECONDS = 10.0
_READY_TIMEOUT_SECONDS = 60.0


class PortConflictError(Exception):
    """A process ended because another program took its port first; a retry with other ports helps."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.port = port


@dataclass
class SupervisedProcess:
    """A process of the Procfile, across its restarts."""

    process_type: ProcessType
    env: dict[str, str]
    cwd: Path
    log_path: Path
    port: int | None
    popen: subprocess.Popen[bytes]
    restarts: RestartSchedule


def start(
    process_type: ProcessType, *, cwd: Path, log_dir: Path, env: Mapping[str, str], port: int | None
) -> SupervisedProcess:
    """Start a process without waiting until it is ready; `env` overrides the present environment."""
    # `python` and `llm-bus` of the Procfile are those of this process.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    full_env = {**os.environ, "PYTHONUNBUFFERED": "1", **env, "PATH": path}
    # The processes never act as the owner of the schema.
    full_env.pop(MIGRATION_DATABASE_URL.name, None)
    if port is not None:
        full_env["PORT"] = str(port)
    log = start_new_log(log_dir, process_type.name)
    return SupervisedProcess(
        process_type,
        full_env,
        cwd,
        log,
        port,
        _spawn(process_type, cwd, log, full_env),
        RestartSchedule(time.monotonic()),
    )


def wait_until_ready(process: SupervisedProcess, on_poll: Callable[[], None]) -> None:
    """Return when the process responds at /healthz; one without a port only has to be alive.

    Raises:
        PortConflictError: another program took its port.
        CliError: it ended or did not respond; the message ends with its log.
    """
    if process.port is None:
        if process.popen.poll() is None:
            return
    elif child.wait_until(lambda: _is_healthy(process), process.popen, _READY_TIMEOUT_SECONDS, on_poll):
        return
    code = process.popen.poll()
    if code is not None and process.port is not None and child.is_port_taken(process.port, process.log_path):
        raise PortConflictError(process.port)
    reason = f"ended with code {code}" if code is not None else f"did not respond in {_READY_TIMEOUT_SECONDS:.0f} s"
    raise CliError(
        f"{process.process_type.name} {reason}. Its log, {process.log_path}, ends with:"
        f"{child.format_log_tail(process.log_path)}"
    )


def restart_if_exited(process: SupervisedProcess, report: Callable[[str], None]) -> bool:
    """Restart the process if it has ended and its restart delay has passed; return whether it was restarted.

    A start that fails, as without memory or disk space, is reported and tried again after the next delay.
    """
    code = process.popen.poll()
    if code is None:
        return False
    name, now = process.process_type.name, time.monotonic()
    delay = process.restarts.plan_restart(now)
    if delay is not None:
        report(f"{name} ended with code {code}; restarting it{format_delay(delay)}. Log: {process.log_path}")
    if not process.restarts.begin_attempt(now):
        return False
    try:
        process.popen = _spawn(process.process_type, process.cwd, process.log_path, process.env)
    except OSError as error:
        report(f"{name} cannot be started: {error}")
        return False
    return True


def format_delay(seconds: float) -> str:
    """Return ` in 5 s`, or nothing for no delay."""
    return f" in {seconds:.0f} s" if seconds else ""


def stop_all(processes: list[SupervisedProcess]) -> None:
    """Terminate all processes, wait up to ten seconds in total, then kill the rest of their process groups."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.popen.terminate()
    deadline = time.monotonic() + _STOP_TIMEOUT_SECONDS
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.popen.wait(max(0.0, deadline - time.monotonic()))
        child.stop(process.popen, ())


def _spawn(process_type: ProcessType, cwd: Path, log_path: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return child.spawn(process_type.command, log_path=log_path, death_signal=signal.SIGTERM, env=env, cwd=cwd)


def _is_healthy(process: SupervisedProcess) -> bool:
    """Return whether /healthz responds and the process itself listens; another bus could respond on its port."""
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
    return _is_listening(process.popen.pid, process.port)


def _is_listening(pid: int, port: int) -> bool:
    try:
        leader = psutil.Process(pid)
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for process in [leader, *leader.children(recursive=True)]
            for connection in process.net_connections("tcp")
        )
    except psutil.AccessDenied:
        # Some systems forbid the inspection; then the HTTP response is sufficient.
        return True
    except psutil.Error:
        return False
