"""Run a program that ends when its parent does.

Usage: exec_tied_to_parent.py PARENT SIGNAL UID GID PROGRAM [ARGUMENT...]

It runs as a script in a bare interpreter (`-I -S`), uses only the standard library and costs about 15 ms. It becomes
the program (exec), so the process id is the one that the parent started.

On Linux the kernel sends SIGNAL when the thread that started this process dies, so a parent killed with -9 leaves no
process behind. Changing the user clears that request, hence the order below. Other systems have no such request: there
the next start cleans up (cli/orphans.py).
"""

import os
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Switch to UID and GID (-1: keep the present user), tie the process to its parent, become the program."""
    parent, death_signal, uid, gid = (int(argument) for argument in arguments[:4])
    program = arguments[4:]
    # Before the switch: the other user may be unable to read the standard library, as below /root.
    prctl = _load_prctl()
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    # If the parent died before the request, the kernel sends no signal.
    if os.getppid() != parent:
        raise SystemExit("The parent has ended already.")
    os.execvp(program[0], program)  # noqa: S606


def _load_prctl() -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        import ctypes
    except ImportError:
        # Python was built without libffi: as on other systems, the next start cleans up.
        return None
    return ctypes.CDLL(None).prctl


if __name__ == "__main__":
    main(sys.argv[1:])
