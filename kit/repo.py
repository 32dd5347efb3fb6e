"""Queries of git: the work tree and its hooks folder."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Separate from the time budget of the bus: git itself may be slow in a large repository.
_GIT_TIMEOUT_SECONDS = 10
# A folder of a branch may look like a bare repository, with a configuration of its own: never use that one.
GIT_OPTIONS = ("-c", "safe.bareRepository=explicit")


class NoRepositoryError(Exception):
    """There is no git repository here, or git failed."""


@dataclass(frozen=True)
class Repo:
    """A work tree.

    Attributes:
        top: its root folder.
        git_dir: its own git folder; for a linked worktree, its folder inside the main repository.
        common_dir: the git folder that all worktrees share.
    """

    top: Path
    git_dir: Path
    common_dir: Path


def run_git(
    *arguments: str,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    timeout_seconds: float = _GIT_TIMEOUT_SECONDS,
) -> bytes:
    """Run a git command. Returns its output.

    Raises:
        NoRepositoryError: the command failed, or git is not installed.
    """
    # A partial clone does not fetch objects for a check.
    env = {
        **os.environ,
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_LITERAL_PATHSPECS": "0",
        "LC_ALL": "C",
    }
    try:
        process = subprocess.run(
            ["git", *GIT_OPTIONS, *arguments],
            cwd=cwd,
            env=env,
            input=stdin,
            capture_output=True,
            timeout=timeout_seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoRepositoryError(f"git did not run ({type(error).__name__})") from error
    if process.returncode:
        errors = process.stderr.decode("utf-8", "replace").strip().splitlines()
        raise NoRepositoryError(errors[-1] if errors else f"git {arguments[0]} failed")
    return process.stdout


def get_repo(start: Path | None = None) -> Repo:
    """Return the work tree that contains `start`, or the current folder.

    Raises:
        NoRepositoryError: there is none.
    """
    folder = start or Path.cwd()
    queries = ("--show-toplevel", "--git-dir", "--git-common-dir")
    lines = os.fsdecode(run_git("rev-parse", *queries, cwd=folder)).split("\n")
    if len(lines) != len(queries) + 1:
        # The name of a folder has a line break: query each path alone, so that no part of one is taken for another.
        lines = [os.fsdecode(run_git("rev-parse", query, cwd=folder))[:-1] for query in queries]
    if not lines[0]:
        raise NoRepositoryError("this is not a work tree")
    # Relative paths in the output are relative to the folder in which git ran.
    return Repo(Path(lines[0]), (folder / lines[1]).resolve(), (folder / lines[2]).resolve())


def get_hooks_dir(repo: Repo) -> Path:
    """Return the hooks folder of a work tree: core.hooksPath, else the hooks of the shared git folder."""
    output = os.fsdecode(run_git("rev-parse", "--git-path", "hooks", cwd=repo.top))[:-1]
    return (repo.top / output).absolute()
