"""A description of the machine: results of different machines, or of a busy one, are not comparable."""

import os
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from bus import __version__
from bus.db import Database

_WRITE_COUNT = 200
_BLOCK = b"\0" * 8192


def describe(database: Database) -> dict[str, Any]:
    """Return the machine, the versions, and the duration of a forced write of 8 KiB."""
    with database.connection() as conn:
        (server,) = conn.fetch_one("SHOW server_version")
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "postgresql": server,
        "llm_bus": __version__,
        "fdatasync_us": round(_measure_forced_write() * 1e6),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _measure_forced_write() -> float:
    """Measure the mean seconds of one write that is on disk when it returns."""
    force_to_disk = getattr(os, "fdatasync", os.fsync)
    with tempfile.TemporaryFile() as file:
        started_at = time.perf_counter()
        for _ in range(_WRITE_COUNT):
            file.seek(0)
            file.write(_BLOCK)
            file.flush()
            force_to_disk(file.fileno())
        return (time.perf_counter() - started_at) / _WRITE_COUNT
