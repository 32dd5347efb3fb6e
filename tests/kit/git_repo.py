"""A git repository of a user, in which tests install the kit."""

import json
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kit.warm_python import write_launcher

PROJECT_ROOT = Path(__file__).resolve().parent.parent.parent
# The most that a hook may take, also after a failure.
MAX_HOOK_SECONDS = 2.0
INSTALLER_PATH = PROJECT_ROOT / "kit" / "install.py"


@dataclass(frozen=True)
class CompletedCommand:
    """The result of a command."""

    returncode: int
    stdout: str
    stderr: str
    seconds: float


@dataclass
class GitRepo:
    """A work tree; its commands see only `env` and `extra_env` of the environment.

    Attributes:
        python: the interpreter itself; `launcher` behaves like it and may be faster.
    """

    root: Path
    env: dict[str, str]
    python: str
    extra_env: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, cwd: Path | None = None, stdin: str = "", **env: str) -> CompletedCommand:
        started_at = time.monotonic()
        process = subprocess.run(
            arguments,
            cwd=cwd or self.root,
            env={**self.env, **self.extra_env, **env},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        return CompletedCommand(process.returncode, process.stdout, process.stderr, time.monotonic() - started_at)

    def git(self, *arguments: str, cwd: Path | None = None, **env: str) -> CompletedCommand:
        """Run a git command, which must succeed."""
        done = self.run("git", *arguments, cwd=cwd, **env)
        assert done.returncode == 0, (arguments, done)
        return done

    def commit(self, message: str = "change", cwd: Path | None = None, **env: str) -> CompletedCommand:
        return self.run("git", "commit", "-q", "-m", message, cwd=cwd, **env)

    def install(self, endpoint: str, *arguments: str, **env: str) -> CompletedCommand:
        done = self.run(self.launcher, str(INSTALLER_PATH), "--endpoint", endpoint, *arguments, cwd=None, **env)
        assert done.returncode == 0, done
        return done

    def run_kit(self, *arguments: str, stdin: str = "", cwd: Path | None = None, **env: str) -> CompletedCommand:
        """Run a command of the installed kit."""
        return self.run(self.launcher, str(self.kit_path), *arguments, stdin=stdin, cwd=cwd, **env)

    @property
    def launcher(self) -> str:
        """The interpreter, or a program that runs the kit in a fork of it; python3 is the same program."""
        return str(Path(self.env["HOME"]).with_name("launcher"))

    @property
    def kit_path(self) -> Path:
        """The folder of the installed code, inside the git folder that all worktrees share."""
        folder = Path(self.git("rev-parse", "--git-common-dir").stdout.rstrip("\n"))
        return self.root / folder / "llm-bus" / "kit"

    @property
    def local_path(self) -> Path:
        """The folder of the kit's local files of this work tree: log, state, saved token."""
        folder = Path(self.git("rev-parse", "--git-dir").stdout.rstrip("\n"))
        return self.root / folder / "llm-bus"

    def run_within_limit(self, *arguments: str, stdin: str = "") -> CompletedCommand:
        """Run a command that must end within two seconds, on a shared machine.

        It gets four attempts, and a surcharge of eight interpreter starts: a tenth of a second on an idle machine, and
        about the number of processes that it starts itself, git included.
        """
        for _ in range(4):
            start_seconds = self.run(self.python, "-c", "pass").seconds
            done = self.run(*arguments, stdin=stdin)
            if done.seconds < MAX_HOOK_SECONDS + 8 * start_seconds:
                return done
        raise AssertionError(f"{arguments} took {done.seconds:.2f} s: {done}")

    def write(self, name: str, text: str = "text\n") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def add(self, *names: str) -> None:
        for name in names:
            self.write(name, f"{name}\n")
        self.git("add", "--", *names)

    def update_config(self, **values: Any) -> None:
        """Change values in the configuration of the kit."""
        path = self.root / "llm-bus.config.json"
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), "utf-8")

    def read_activity_log(self) -> list[dict[str, Any]]:
        path = self.local_path / "journal.jsonl"
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []

    def snapshot(self, *folders: Path) -> dict[str, Any]:
        """Return mode and content of each file in the work tree and these folders; of .git only the configuration."""
        files: dict[str, Any] = {}
        for folder in (self.root, *folders):
            for path in sorted(folder.rglob("*")):
                if ".git" in path.relative_to(folder).parts and folder == self.root:
                    continue
                files[str(path)] = _describe_path(path)
        git = self.root / ".git"
        for name in ("config", "info/exclude", "llm-bus"):
            if git.is_dir():
                files[name] = _describe_path(git / name)
        return files


def _describe_path(path: Path) -> Any:
    if path.is_symlink():
        return ("link", os.readlink(path))
    if path.is_dir():
        return "folder"
    if not path.exists():
        return None
    return (stat.S_IMODE(path.stat().st_mode), path.read_bytes())


def make_environ(folder: Path, python: str, *, forks: bool = True) -> dict[str, str]:
    """Create an environment with its own home folder, in which python3 is this interpreter.

    Args:
        forks: run the kit in forks of a running interpreter, where the system can do that.
    """
    home, programs = folder / "home", folder / "bin"
    home.mkdir()
    programs.mkdir()
    write_launcher(folder / "launcher", python, forks=forks)
    (programs / "python3").symlink_to(folder / "launcher")
    git = shutil.which("git")
    assert git is not None
    return {
        "PATH": os.pathsep.join([str(programs), str(Path(git).parent), "/usr/bin", "/bin"]),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "GIT_AUTHOR_NAME": "A",
        "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_COMMITTER_NAME": "A",
        "GIT_COMMITTER_EMAIL": "a@example.org",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": "init.defaultBranch",
        "GIT_CONFIG_VALUE_0": "main",
        "GIT_CONFIG_KEY_1": "protocol.file.allow",
        "GIT_CONFIG_VALUE_1": "always",
    }


def make_repo(
    folder: Path, python: str, name: str = "repo", env: Mapping[str, str] | None = None, *, forks: bool = True
) -> GitRepo:
    """Create a repository with one commit."""
    root = folder / name
    root.mkdir(parents=True)
    repo = GitRepo(root, dict(env) if env is not None else make_environ(folder, python, forks=forks), python)
    repo.git("init", "-q")
    repo.write("README.md", "# A project\n")
    repo.write("docs/adr/.keep", "")
    repo.git("add", "-A")
    assert repo.commit("first").returncode == 0
    return repo
