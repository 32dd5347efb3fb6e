"""The child processes of a process, of which each may end while it is asked about."""

from collections.abc import Callable
from contextlib import suppress

import psutil


def find_children(
    parent: psutil.Process, condition: Callable[[psutil.Process], bool], *, recursive: bool = False
) -> list[psutil.Process]:
    """Return the children for which the condition holds, without those that have ended."""
    return find_processes(parent.children(recursive=recursive), condition)


def find_serving_children(pid: int) -> list[psutil.Process]:
    """Return the children of this process that run, without those that have ended and are not yet reaped."""
    return find_children(psutil.Process(pid), is_running)


def is_running(process: psutil.Process) -> bool:
    """Return whether the process has not ended; of one that has, only its exit status may be left."""
    return bool(find_processes([process], lambda it: it.is_running() and it.status() != psutil.STATUS_ZOMBIE))


def find_processes(
    processes: list[psutil.Process], condition: Callable[[psutil.Process], bool]
) -> list[psutil.Process]:
    """Return the processes for which the condition holds, without those that have ended."""
    found = []
    for process in processes:
        # ZombieProcess is a NoSuchProcess; macOS denies access to a process that is not yet reaped.
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if condition(process):
                found.append(process)
    return found
