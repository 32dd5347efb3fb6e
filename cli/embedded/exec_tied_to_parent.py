"""Run a program that ends when its parent does: `leash.py PARENT SIGNAL UID GID PROGRAM [ARGUMENT...]`.

Started as a script with a bare interpreter (`-I -S`), so it needs nothing but the standard library and
costs some 15 ms. It becomes the program (exec), so the process id is the one that the parent started.

On Linux the kernel sends SIGNAL when the thread that started this process dies; a parent that is killed
with -9 thus leaves nothing behind. Changing the user clears that request, hence the order below. Other
systems have no such request: there the next start cleans up (cli/orphans.py).
"""

import os
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Drop to UID and GID (-1: stay who we are), tie the process to its parent, become the program."""
    parent, death_signal, uid, gid = (int(argument) for argument in arguments[:4])
    program = arguments[4:]
    # Before the switch: the other user may be unable to read our standard library, in /root for example.
    ask_the_kernel = _load_prctl()
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if ask_the_kernel is not None:
        ask_the_kernel(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    # The parent may have died before the request was made; nobody would tell us any more.
    if os.getppid() != parent:
        raise SystemExit("The parent has ended already.")
    os.execvp(program[0], program)  # noqa: S606


def _load_prctl() -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        import ctypes
    except ImportError:
        # A Python built without libffi: as on other systems, the next start cleans up.
        return None
    return ctypes.CDLL(None).prctl


if __name__ == "__main__":
    main(sys.argv[1:])
