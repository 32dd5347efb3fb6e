"""Child processes that end with their parent: start, readiness and graduated shutdown."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from cli.embedded.account import UnixAccount
from cli.ports import is_free

_EXEC_SCRIPT = Path(__file__).with_name("exec_tied_to_parent.py")


class StartFailedError(Exception):
    """A server did not start; the message has the reason and the last lines of its log."""


class PortTakenError(StartFailedError):
    """A server did not start because another program took its port first; a retry with another port helps."""


def spawn(
    command: Sequence[str],
    *,
    log_path: Path,
    death_signal: signal.Signals,
    env: Mapping[str, str],
    cwd: Path,
    account: UnixAccount | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program, with its output appended to a log; a log that cannot be opened, as on a full disk, is left out.

    Call it from the main thread: on Linux the child gets `death_signal` when the starting thread dies.
    The child has its own session, so that the terminal's Ctrl-C does not reach it and children stop in order.
    """
    uid, gid = (account.uid, account.gid) if account else (-1, -1)
    exec_script = [sys.executable, "-I", "-S", str(_EXEC_SCRIPT)]
    with contextlib.ExitStack() as stack:
        output: IO[bytes] | int = subprocess.DEVNULL
        with contextlib.suppress(OSError):
            output = stack.enter_context(log_path.open("ab"))
        return subprocess.Popen(
            [*exec_script, str(os.getpid()), str(int(death_signal)), str(uid), str(gid), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes], signal_steps: Sequence[tuple[signal.Signals, float]]) -> None:
    """Send each signal in turn and wait its seconds, then kill the rest of the process group."""
    for number, seconds in signal_steps:
        if process.poll() is not None:
            break
        process.send_signal(number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
    _kill_process_group(process.pid)
    process.wait()


def wait_until(
    is_ready: Callable[[], bool], process: subprocess.Popen[bytes], timeout_seconds: float, on_poll: Callable[[], None]
) -> bool:
    """Poll `is_ready` until it returns true; return False if the process ended or the time has passed.

    Args:
        is_ready: the condition.
        process: the process that has to become ready.
        timeout_seconds: the longest wait.
        on_poll: called before each poll; it may raise to abort the wait, as when a signal arrived.
    """
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        on_poll()
        if process.poll() is not None:
            return False
        if is_ready():
            return True
        time.sleep(0.02)
    return False


def format_log_tail(log_path: Path, max_lines: int = 12) -> str:
    """Return the last lines of a log, indented, for an error message."""
    try:
        with log_path.open("rb") as file:
            file.seek(max(0, log_path.stat().st_size - 16_384))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "".join(f"\n    {line}" for line in text.splitlines()[-max_lines:])


def is_port_taken(port: int, log_path: Path) -> bool:
    """Return whether a server ended because another program had its port.

    The log is checked too, since the other program may have ended already.
    """
    return not is_free(port) or "address already in use" in format_log_tail(log_path, 40).lower()


def do_nothing() -> None:
    """Do nothing between polls."""


def _kill_process_group(group_id: int) -> None:
    # The leader may have ended while its children still run.
    try:
        os.killpg(group_id, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
