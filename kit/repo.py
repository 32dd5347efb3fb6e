"""Queries of git: the work tree, its hooks folder, and the staged changes."""

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


@dataclass(frozen=True)
class StagedChange:
    """A staged change.

    Attributes:
        is_new: whether the path is not in HEAD.
        old_path: the old path of a rename.
    """

    path: str
    is_new: bool
    old_path: str | None = None


def run_git(*arguments: str, cwd: Path | None = None, stdin: bytes | None = None) -> bytes:
    """Run a git command. Returns its output.

    Raises:
        NoRepositoryError: the command failed, or git is not installed.
    """
    env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        process = subprocess.run(
            ["git", *GIT_OPTIONS, *arguments],
            cwd=cwd,
            env=env,
            input=stdin,
            capture_output=True,
            timeout=_GIT_TIMEOUT_SECONDS,
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


def list_staged_changes(repo: Repo) -> list[StagedChange]:
    """List the staged changes, with paths as the repository spells them.

    A path is new if HEAD does not have it. During a merge, rebase, cherry-pick or revert a path that the other side
    has is not new either: its number was checked when it was committed there.
    """
    output = run_git(
        "diff", "--cached", "--name-status", "-z", "-M", "--no-ext-diff", "--ignore-submodules", cwd=repo.top
    )
    fields = os.fsdecode(output).split("\0")
    changes: list[StagedChange] = []
    index = 0
    while index + 1 < len(fields):
        status = fields[index][:1]
        if status in ("R", "C"):
            changes.append(StagedChange(fields[index + 2], True, fields[index + 1] if status == "R" else None))
            index += 3
        else:
            changes.append(StagedChange(fields[index + 1], status == "A"))
            index += 2
    added = [change.path for change in changes if change.is_new]
    other_side = _paths_on_other_side(repo, added) if added else set()
    return [
        StagedChange(change.path, False, change.old_path) if change.path in other_side else change for change in changes
    ]


def is_new(repo: Repo, path: str) -> bool:
    """Whether neither HEAD nor the other side of a merge in progress has this path."""
    return path not in _paths_in_commit(repo, "HEAD", [path]) and path not in _paths_on_other_side(repo, [path])


def _paths_on_other_side(repo: Repo, paths: list[str]) -> set[str]:
    other_side: set[str] = set()
    for name in ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD"):
        head = repo.git_dir / name
        if not head.exists():
            continue
        for commit in head.read_text("ascii", "replace").split():
            # A revert restores the paths of the parent of the reverted commit.
            other_side |= _paths_in_commit(repo, f"{commit}^" if name == "REVERT_HEAD" else commit, paths)
    # After a conflict is resolved by hand a rebase names no commit, but still the branch that it replays.
    for folder in ("rebase-merge", "rebase-apply"):
        original_head = repo.git_dir / folder / "orig-head"
        if original_head.exists():
            other_side |= _paths_in_commit(repo, original_head.read_text("ascii", "replace").strip(), paths)
    return other_side


def _paths_in_commit(repo: Repo, commit: str, paths: list[str]) -> set[str]:
    # git reads and answers line by line; a path with a line break cannot be queried, and stays new.
    queryable = [path for path in paths if "\n" not in path]
    if not queryable:
        return set()
    queries = b"".join(os.fsencode(f"{commit}:{path}\n") for path in queryable)
    try:
        output = run_git("cat-file", "--batch-check=%(objecttype)", cwd=repo.top, stdin=queries)
    except NoRepositoryError:
        return set()
    types = output.decode("utf-8", "replace").split("\n")
    return {path for path, object_type in zip(queryable, types) if object_type == "blob"}
