"""Attaching py-spy to a gateway while a scenario loads it. py-spy is not a dependency: it is used where it is found."""

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

INSTALL_HINT = "py-spy is not installed: `.venv/bin/python -m pip install py-spy`, then run again with --profile."
_STOP_SECONDS = 20.0


def find_py_spy() -> str | None:
    """The program, if it is on the PATH."""
    return shutil.which("py-spy")


def make_profiler(program: str, pid: int, folder: Path) -> Callable[[str], AbstractContextManager[None]]:
    """What a scenario puts around a measurement to have a flame graph of one gateway written to `folder`."""

    @contextmanager
    def profiled(name: str) -> Iterator[None]:
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"profile-{name}.svg"
        command = [program, "record", "--pid", str(pid), "--output", str(target), "--rate", "200", "--duration", "600"]
        recording = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            # An interrupt makes it write what it has.
            recording.send_signal(signal.SIGINT)
            try:
                recording.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                recording.kill()

    return profiled
