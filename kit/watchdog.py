"""A limit for a whole hook, so that nothing in a repository can hang a commit: no pattern, no file, no git.

A thread cannot do this: the interpreter does not switch threads while a regular expression is matched. A signal also
ends a match, since the matcher checks for signals.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

LIMIT_SECONDS = 5.0
# Of this process alone, without git: reached by a pattern that backtracks without end.
CPU_LIMIT_SECONDS = 1.5
_CHILD_VARIABLE = "LLM_BUS_WATCHED"
_GRACE_SECONDS = 0.5


class HookTimeoutError(BaseException):
    """The hook exceeded its limit. No handler of `Exception` catches it."""


def start() -> None:
    """Limit the rest of this process, where the system has timers."""
    if not hasattr(signal, "setitimer"):
        return
    signal.signal(signal.SIGALRM, _raise_timeout)
    signal.signal(signal.SIGPROF, _raise_timeout)
    # The second signal ends the process if the exception was not enough.
    signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS, _GRACE_SECONDS)
    signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT_SECONDS, _GRACE_SECONDS)


def run_in_child(arguments: Sequence[str]) -> int | None:
    """Run a command of the kit in a process that is ended at the limit: on Windows, which has no timers.

    Returns:
        Its exit code; None if the command is to run in this process.

    Raises:
        HookTimeoutError: it exceeded the limit.
    """
    if hasattr(signal, "setitimer") or os.environ.get(_CHILD_VARIABLE):
        return None
    return wait_for_child([sys.executable, "-I", sys.argv[0], *arguments])


def wait_for_child(command: Sequence[str]) -> int:
    """Run a command of the kit and end it at the limit. Returns its exit code.

    Raises:
        HookTimeoutError: it exceeded the limit.
    """
    try:
        environment = {**os.environ, _CHILD_VARIABLE: "1"}
        return subprocess.run(command, env=environment, timeout=LIMIT_SECONDS, check=False).returncode
    except subprocess.TimeoutExpired:
        raise HookTimeoutError(_format_limit()) from None


def _raise_timeout(number: int, frame: FrameType | None) -> None:
    for name in ("SIGALRM", "SIGPROF"):
        signal.signal(getattr(signal, name), lambda number, frame: os._exit(0))
    raise HookTimeoutError(_format_limit())


def _format_limit() -> str:
    return (
        f"the check exceeded its limit of {LIMIT_SECONDS:.0f} s (or {CPU_LIMIT_SECONDS:.1f} s of computing, as a "
        "pattern in the configuration may need)"
    )
