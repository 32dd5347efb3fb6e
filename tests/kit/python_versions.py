"""The interpreters that the kit's tests run under: the oldest and the newest on this machine that it supports."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

MIN_VERSION = (3, 9)


@cache
def find_interpreters() -> dict[tuple[int, ...], str]:
    """Interpreters by version: those on PATH, and those of pyenv, whose shims stand on PATH but may lead nowhere."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders += sorted(root.glob("versions/*/bin"))
    names = {f"python3.{minor}" for minor in range(MIN_VERSION[1], 20)}
    found = {tuple(sys.version_info[:3]): sys.executable}
    for path in (folder / name for folder in folders for name in names):
        if not path.is_file() or not os.access(path, os.X_OK):
            continue
        said = subprocess.run(
            [path, "-c", "import sys, ssl; print(*sys.version_info[:3])"], capture_output=True, text=True, check=False
        )
        if said.returncode == 0:
            found.setdefault(tuple(int(part) for part in said.stdout.split()), str(path))
    return {version: found[version] for version in sorted(found) if version >= MIN_VERSION}


def oldest_and_newest() -> dict[str, str]:
    """The oldest and the newest, by the text of their version; one if there is only one."""
    versions = find_interpreters()
    ends = dict.fromkeys((min(versions), max(versions)))
    return {".".join(map(str, version)): versions[version] for version in ends}
