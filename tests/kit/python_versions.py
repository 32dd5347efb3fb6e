"""The interpreters for the kit's tests: the oldest and the newest supported ones on this machine."""

import os
import subprocess
import sys
from pathlib import Path

MIN_VERSION = (3, 9)


def oldest_and_newest() -> dict[str, str]:
    """Return the oldest and the newest interpreter by version, or the only one.

    They are looked for on the PATH and in pyenv, whose shims on the PATH may be broken. Starts only as many of them
    as it must, since each worker process of a test run does it.
    """
    candidates = _list_candidates()
    own = (tuple(sys.version_info[:3]), sys.executable)
    oldest = next((entry for entry in map(_probe, candidates) if entry), own)
    newest = next((entry for entry in map(_probe, reversed(candidates)) if entry), own)
    return {".".join(map(str, number)): path for number, path in sorted({min(oldest, own), max(newest, own)})}


def _list_candidates() -> list[Path]:
    """List the programs of supported versions, the oldest first."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders += sorted(root.glob("versions/*/bin"))
    paths = (folder / f"python3.{minor}" for minor in range(MIN_VERSION[1], 20) for folder in folders)
    return [path for path in paths if path.is_file() and os.access(path, os.X_OK)]


def _probe(path: Path) -> tuple[tuple[int, ...], str] | None:
    """Return the version and the path of an interpreter that works."""
    version = subprocess.run(
        [path, "-c", "import sys, ssl; print(*sys.version_info[:3])"], capture_output=True, text=True, check=False
    )
    return (tuple(int(part) for part in version.stdout.split()), str(path)) if version.returncode == 0 else None
