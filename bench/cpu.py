"""CPU seconds and memory of the measured processes, to distinguish their load from that of a busy machine."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress

import psutil

ProcessGroups = Mapping[str, Sequence[int]]
OTHERS = "others"


def take_snapshot(process_groups: ProcessGroups) -> dict[str, float]:
    """Return the CPU seconds that each group has used, child processes included, and those of all other processes.

    Args:
        process_groups: the process ids by group; PostgreSQL is given by its postmaster.
    """
    used = {group: sum(_cpu_seconds(pid) for pid in pids) for group, pids in process_groups.items()}
    times = psutil.cpu_times()
    busy = sum(times) - times.idle - getattr(times, "iowait", 0.0)
    # User time on Linux includes guest time.
    busy -= getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return {**used, OTHERS: busy - sum(used.values())}


def elapsed_seconds(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return the CPU seconds of each group between two snapshots; never negative, although clocks tick coarsely."""
    return {group: max(0.0, after[group] - before[group]) for group in before}


def own_pids() -> list[int]:
    """Return this process as a group."""
    return [os.getpid()]


def private_memory(pid: int) -> int:
    """Return the bytes that only this process uses, or its resident size if the system does not report them."""
    info = psutil.Process(pid).memory_full_info()
    return int(getattr(info, "uss", info.rss))


def _cpu_seconds(pid: int) -> float:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        own_times = process.cpu_times()
        # The parent's times include ended children; running ones are added.
        total = own_times.user + own_times.system + own_times.children_user + own_times.children_system
        for child in process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                times = child.cpu_times()
                total += times.user + times.system
        return float(total)
    return 0.0
