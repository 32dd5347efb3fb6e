"""Profiles of a gateway under load with py-spy, which is not a dependency of the project."""

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

INSTALL_HINT = "py-spy is not installed: `.venv/bin/python -m pip install py-spy`, then run again with --profile."
_STOP_SECONDS = 20.0


def find_py_spy() -> str | None:
    """Find py-spy on the PATH."""
    return shutil.which("py-spy")


def make_profiler(program: str, pid: int, folder: Path) -> Callable[[str], AbstractContextManager[None]]:
    """Create a context manager factory that records a flame graph of one gateway around a measurement.

    Args:
        program: the path of py-spy.
        pid: the process to record.
        folder: the place for the flame graphs.
    """

    @contextmanager
    def record_profile(name: str) -> Iterator[None]:
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"profile-{name}.svg"
        command = [program, "record", "--pid", str(pid), "--output", str(target), "--rate", "200", "--duration", "600"]
        recording = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            # On an interrupt py-spy writes its result.
            recording.send_signal(signal.SIGINT)
            try:
                recording.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                recording.kill()

    return record_profile
