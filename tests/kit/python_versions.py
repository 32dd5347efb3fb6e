"""The interpreters for the kit's tests: the oldest and the newest supported ones on this machine."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

MIN_VERSION = (3, 9)


@cache
def find_interpreters() -> dict[tuple[int, ...], str]:
    """Find interpreters by version, on the PATH and in pyenv, whose shims on the PATH may be broken."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders += sorted(root.glob("versions/*/bin"))
    names = {f"python3.{minor}" for minor in range(MIN_VERSION[1], 20)}
    interpreters = {tuple(sys.version_info[:3]): sys.executable}
    for path in (folder / name for folder in folders for name in names):
        if not path.is_file() or not os.access(path, os.X_OK):
            continue
        version = subprocess.run(
            [path, "-c", "import sys, ssl; print(*sys.version_info[:3])"], capture_output=True, text=True, check=False
        )
        if version.returncode == 0:
            interpreters.setdefault(tuple(int(part) for part in version.stdout.split()), str(path))
    return {number: interpreters[number] for number in sorted(interpreters) if number >= MIN_VERSION}


def oldest_and_newest() -> dict[str, str]:
    """Return the oldest and the newest interpreter by version, or the only one."""
    interpreters = find_interpreters()
    versions = dict.fromkeys((min(interpreters), max(interpreters)))
    return {".".join(map(str, version)): interpreters[version] for version in versions}
