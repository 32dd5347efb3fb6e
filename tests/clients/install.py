"""The programs of the clients, installed by npm in the versions and with the checksums of `npm/package-lock.json`."""

import filecmp
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.node import Node, find_or_install_node

LOCK_FOLDER = Path(__file__).with_name("npm")
FOLDER_VARIABLE = "LLM_BUS_CLIENTS"
_ARCHITECTURES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


class Programs:
    """The installed programs in one folder."""

    def __init__(self, folder: Path, node: Node) -> None:
        self._packages = folder / "node_modules"
        self._node_path = node.path

    def find_native(self, package: str, file_pattern: str) -> list[str] | None:
        """Return the command of a client whose programs are packages by platform; None if there is none for this one.

        Args:
            package: the name of the package, with `{platform}`, such as linux-x64.
            file_pattern: a glob in the package.
        """
        folder = self._packages / package.format(platform=_platform_name())
        return next(([str(path)] for path in folder.glob(file_pattern)), None)

    def find_script(self, path: str) -> list[str]:
        """Return the command of a client written in JavaScript."""
        node = shutil.which("node", path=self._node_path)
        assert node is not None
        return [node, str(self._packages / path)]


@contextmanager
def installed_programs() -> Iterator[Programs]:
    """Install the clients into a temporary folder, or into the one of LLM_BUS_CLIENTS, which is kept."""
    node = find_or_install_node()
    if folder_name := os.environ.get(FOLDER_VARIABLE):
        folder = Path(folder_name).absolute()
        _install(folder, node)
        yield Programs(folder, node)
    else:
        with TemporaryDirectory(prefix="clients-") as temporary_folder:
            _install(Path(temporary_folder), node)
            yield Programs(Path(temporary_folder), node)


def _install(folder: Path, node: Node) -> None:
    finished = folder / "installed-lock.json"
    lock = LOCK_FOLDER / "package-lock.json"
    if finished.exists() and filecmp.cmp(finished, lock, shallow=False):
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(LOCK_FOLDER / name, folder / name)
    # Install scripts would run code of all dependencies; the clients are chosen so that none is needed.
    command = [*node.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=folder, env={**os.environ, "PATH": node.path}, check=True)
    shutil.copyfile(lock, finished)


def _platform_name() -> str:
    machine = platform.machine().lower()
    return f"{platform.system().lower()}-{_ARCHITECTURES.get(machine, machine)}"
