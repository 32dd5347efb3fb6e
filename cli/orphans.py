"""Orphaned child processes of an `up` that was killed: recorded while it runs, terminated at the next start.

On Linux the kernel ends them with their parent. On other systems, and until they have ended, this keeps the
processes of two starts from working in one folder.
"""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

import psutil

from cli.files import write_private

_CHILDREN_FILE = "children.json"


def record_children(data: Path, children: Mapping[str, int]) -> None:
    """Record the children by name and process id.

    Raises:
        OSError: the record cannot be written, as on a full disk.
    """
    records = []
    for name, pid in children.items():
        with contextlib.suppress(psutil.Error):
            records.append({"name": name, "pid": pid, "started": psutil.Process(pid).create_time()})
    write_private(data / _CHILDREN_FILE, json.dumps(records))


def delete_record(data: Path) -> None:
    """Delete the record when all children have ended; this needs no disk space."""
    with contextlib.suppress(OSError):
        (data / _CHILDREN_FILE).unlink(missing_ok=True)


def terminate_all(data: Path) -> None:
    """Terminate the recorded processes of the last run and their descendants."""
    file = data / _CHILDREN_FILE
    try:
        records = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    children = [process for record in records if (process := _find_recorded_process(record)) is not None]
    descendants = [descendant for process in children for descendant in _list_descendants(process)]
    for process in children:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs([*children, *descendants], timeout=10)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=5)
    file.unlink(missing_ok=True)


def _find_recorded_process(record: dict[str, object]) -> psutil.Process | None:
    """Return the recorded process, unless its id belongs to another process now."""
    pid, started = record.get("pid"), record.get("started")
    if not isinstance(pid, int) or not isinstance(started, float):
        return None
    try:
        process = psutil.Process(pid)
        # With a tolerance, since psutil computes the start time from the boot time, which follows the clock.
        return process if abs(process.create_time() - started) < 2 else None
    except psutil.Error:
        return None


def _list_descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []
