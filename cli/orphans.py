"""Children of an `up` that was killed: written down while it runs, ended at the next start.

On Linux the kernel ends them with their parent; elsewhere, and in the moments until they are gone, this is
what keeps two generations from working in one folder.
"""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

import psutil

from cli.files import write_private

_CHILDREN_FILE = "children.json"


def record_children(data: Path, children: Mapping[str, int]) -> None:
    """Write down which processes are ours, by name and process id."""
    records = []
    for name, pid in children.items():
        with contextlib.suppress(psutil.Error):
            records.append({"name": name, "pid": pid, "started": psutil.Process(pid).create_time()})
    write_private(data / _CHILDREN_FILE, json.dumps(records))


def terminate_all(data: Path) -> None:
    """End what is left of the last run."""
    file = data / _CHILDREN_FILE
    try:
        records = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    ours = [process for record in records if (process := _find_recorded_process(record)) is not None]
    family = [*ours, *(child for process in ours for child in _list_descendants(process))]
    for process in ours:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=10)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=5)
    file.unlink(missing_ok=True)


def _find_recorded_process(record: dict[str, object]) -> psutil.Process | None:
    """The process of a record, unless another has its id by now."""
    pid, started = record.get("pid"), record.get("started")
    if not isinstance(pid, int) or not isinstance(started, float):
        return None
    try:
        process = psutil.Process(pid)
        # Seconds, since the boot time that it is computed from follows the clock.
        return process if abs(process.create_time() - started) < 2 else None
    except psutil.Error:
        return None


def _list_descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []
