"""Real managers of git hooks, installed from their registries into a temporary folder."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.kit.git_repo import CompletedCommand, GitRepo
from tests.node import find_or_install_node

_PYTHON_PACKAGES = ("pre-commit==4.7.0", "prek==0.5.10", "lefthook==2.2.2")
_NODE_PACKAGES = ("husky@9.1.7",)


@dataclass(frozen=True)
class HookManagers:
    """The programs of the managers.

    Attributes:
        path: the PATH with all of them.
        husky: the command that installs husky.
    """

    path: str
    husky: tuple[str, ...]

    def run(self, repo: GitRepo, *arguments: str) -> CompletedCommand:
        """Run a command of a manager in a repository; it must succeed."""
        done = repo.run(*arguments, PATH=os.pathsep.join([repo.env["PATH"], self.path]))
        assert done.returncode == 0, done
        return done


@contextmanager
def installed_hook_managers() -> Iterator[HookManagers]:
    """Install pre-commit, prek, lefthook and husky."""
    node = find_or_install_node()
    with TemporaryDirectory(prefix="hook-managers-") as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-m", "venv", folder / "python"], check=True)
        programs = folder / "python" / "bin"
        options = ["--quiet", "--disable-pip-version-check"]
        subprocess.run([programs / "pip", "install", *options, *_PYTHON_PACKAGES], check=True)
        (folder / "package.json").write_text("{}")
        command = [*node.npm, "install", "--silent", "--no-audit", "--no-fund", *_NODE_PACKAGES]
        subprocess.run(command, cwd=folder, env={**os.environ, "PATH": node.path}, check=True)
        husky = ("node", str(folder / "node_modules" / "husky" / "bin.js"))
        yield HookManagers(os.pathsep.join([str(programs), node.path]), husky)
