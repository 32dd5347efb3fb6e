"""CPU seconds and memory of the processes that take part, so that a rate can be told apart from a busy machine."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress

import psutil

ProcessGroups = Mapping[str, Sequence[int]]
OTHERS = "others"


def take_snapshot(process_groups: ProcessGroups) -> dict[str, float]:
    """CPU seconds used so far by each party, its child processes included, and by everybody else.

    Args:
        watched: the process ids of each party; a PostgreSQL is known by its postmaster.
    """
    used = {party: sum(_cpu_seconds(pid) for pid in pids) for party, pids in process_groups.items()}
    times = psutil.cpu_times()
    busy = sum(times) - times.idle - getattr(times, "iowait", 0.0)
    # Guest time is contained in user time on Linux.
    busy -= getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return {**used, OTHERS: busy - sum(used.values())}


def elapsed_seconds(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """CPU seconds of each party from one snapshot to the next; never negative, since clocks tick coarsely."""
    return {party: max(0.0, after[party] - before[party]) for party in before}


def own_pids() -> list[int]:
    """This process, as a party."""
    return [os.getpid()]


def private_memory(pid: int) -> int:
    """Bytes that only this process holds; where the system does not say, its resident size."""
    info = psutil.Process(pid).memory_full_info()
    return int(getattr(info, "uss", info.rss))


def _cpu_seconds(pid: int) -> float:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        own_times = process.cpu_times()
        # Children that ended are in the parent's own account; those that run are asked.
        total = own_times.user + own_times.system + own_times.children_user + own_times.children_system
        for child in process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                times = child.cpu_times()
                total += times.user + times.system
        return float(total)
    return 0.0
