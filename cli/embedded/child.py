"""Child processes: started on a leash, in a session of their own, and ended step by step."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cli.embedded.account import UnixAccount
from cli.ports import is_free

_EXEC_SCRIPT = Path(__file__).with_name("exec_tied_to_parent.py")


class StartFailedError(Exception):
    """A server did not come up; the message says which, why, and ends with the last lines of its log."""


class PortTakenError(StartFailedError):
    """A server did not come up because somebody else took its port first; another port helps."""


def spawn(
    command: Sequence[str],
    *,
    log_path: Path,
    death_signal: signal.Signals,
    env: Mapping[str, str],
    cwd: Path,
    account: UnixAccount | None = None,
) -> subprocess.Popen[bytes]:
    """Start `program` with its output appended to `log`.

    Call it from the main thread: on Linux the child gets `death_signal` when the starting thread dies.
    Its own session keeps the terminal's Ctrl-C away from it, so that we end our children in order.
    """
    uid, gid = (account.uid, account.gid) if account else (-1, -1)
    leash = [sys.executable, "-I", "-S", str(_EXEC_SCRIPT)]
    with log_path.open("ab") as output:
        return subprocess.Popen(
            [*leash, str(os.getpid()), str(int(death_signal)), str(uid), str(gid), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes], signal_steps: Sequence[tuple[signal.Signals, float]]) -> None:
    """Send each signal in turn, waiting the seconds beside it, then kill what is left of the group."""
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
    """Poll `ready` until it is true; False when the process ended or the time is over.

    Args:
        tick: called between polls; it may raise to break off (a signal arrived).
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
    """The last lines of a log, indented, for an error message."""
    try:
        with log_path.open("rb") as file:
            file.seek(max(0, log_path.stat().st_size - 16_384))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "".join(f"\n    {line}" for line in text.splitlines()[-max_lines:])


def is_port_taken(port: int, log_path: Path) -> bool:
    """Whether a server that ended did so because somebody else had its port.

    Its log tells as well, since that somebody may have left already.
    """
    return not is_free(port) or "address already in use" in format_log_tail(log_path, 40).lower()


def do_nothing() -> None:
    """Wait without being interrupted."""


def _kill_process_group(group_id: int) -> None:
    # The leader may be gone while what it started lives on.
    try:
        os.killpg(group_id, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
