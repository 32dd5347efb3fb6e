"""What the hook asks of git."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Not the budget of the bus: git itself may be slow in a large repository.
_GIT_TIMEOUT_SECONDS = 10


class NoRepositoryError(Exception):
    """There is no git here, or it does not answer."""


@dataclass(frozen=True)
class Repo:
    """A work tree.

    Attributes:
        top: its root.
        git_dir: what is its own in git: of a worktree, its folder in the main repository.
        common_dir: what all worktrees share.
    """

    top: Path
    git_dir: Path
    common_dir: Path


@dataclass(frozen=True)
class StagedChange:
    """A staged change; `before` is the old path of a rename, `new` whether the path is not in HEAD."""

    path: str
    is_new: bool
    old_path: str | None = None


def run_git(*arguments: str, cwd: Path | None = None, stdin: bytes | None = None) -> bytes:
    """What one git command prints.

    Raises:
        NoRepositoryError: it failed, or there is no git.
    """
    env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=cwd,
            env=env,
            input=stdin,
            capture_output=True,
            timeout=_GIT_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoRepositoryError(f"git did not answer ({type(error).__name__})") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise NoRepositoryError(said[-1] if said else f"git {arguments[0]} failed")
    return done.stdout


def get_repo(start: Path | None = None) -> Repo:
    """The work tree around `start`, or around the current folder.

    Raises:
        NoRepositoryError: there is none.
    """
    where = start or Path.cwd()
    said = run_git("rev-parse", "--show-toplevel", "--git-dir", "--git-common-dir", cwd=where)
    lines = os.fsdecode(said).split("\n")
    if len(lines) < 3 or not lines[0]:
        raise NoRepositoryError("this is not a work tree")
    # Relative answers are relative to where git was asked.
    return Repo(Path(lines[0]), (where / lines[1]).resolve(), (where / lines[2]).resolve())


def get_hooks_dir(repo: Repo) -> Path:
    """Where git looks for hooks here: core.hooksPath, else the hooks of the shared folder."""
    said = os.fsdecode(run_git("rev-parse", "--git-path", "hooks", cwd=repo.top)).rstrip("\n")
    return (repo.top / said).absolute()


def list_staged_changes(repo: Repo) -> list[StagedChange]:
    """What the commit is about to change, with paths as the repository spells them.

    New are paths that HEAD does not have. During a merge, rebase, cherry-pick or revert a path that the other side
    has is not new either: it was named there, by whoever claimed it.
    """
    said = run_git(
        "diff", "--cached", "--name-status", "-z", "-M", "--no-ext-diff", "--ignore-submodules", cwd=repo.top
    )
    fields = os.fsdecode(said).split("\0")
    changes: list[StagedChange] = []
    at = 0
    while at + 1 < len(fields):
        status = fields[at][:1]
        if status in ("R", "C"):
            changes.append(StagedChange(fields[at + 2], True, fields[at + 1] if status == "R" else None))
            at += 3
        else:
            changes.append(StagedChange(fields[at + 1], status == "A"))
            at += 2
    added = [change.path for change in changes if change.is_new]
    elsewhere = _paths_on_other_side(repo, added) if added else set()
    return [
        StagedChange(change.path, False, change.old_path) if change.path in elsewhere else change for change in changes
    ]


def is_new(repo: Repo, path: str) -> bool:
    """Whether neither HEAD nor the other side of a merge under way has this path."""
    return path not in _paths_in_commit(repo, "HEAD", [path]) and path not in _paths_on_other_side(repo, [path])


def _paths_on_other_side(repo: Repo, paths: list[str]) -> set[str]:
    found: set[str] = set()
    for name in ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD"):
        head = repo.git_dir / name
        if not head.exists():
            continue
        for commit in head.read_text("ascii", "replace").split():
            # A revert brings back what the commit before the reverted one had.
            found |= _paths_in_commit(repo, f"{commit}^" if name == "REVERT_HEAD" else commit, paths)
    # A rebase names no commit once its conflict is resolved by hand, but the branch that it replays it does.
    for folder in ("rebase-merge", "rebase-apply"):
        original = repo.git_dir / folder / "orig-head"
        if original.exists():
            found |= _paths_in_commit(repo, original.read_text("ascii", "replace").strip(), paths)
    return found


def _paths_in_commit(repo: Repo, commit: str, paths: list[str]) -> set[str]:
    # One answer a line; a path with a line break cannot be asked for, and stays new.
    askable = [path for path in paths if "\n" not in path]
    if not askable:
        return set()
    asked = b"".join(os.fsencode(f"{commit}:{path}\n") for path in askable)
    try:
        said = run_git("cat-file", "--batch-check=%(objecttype)", cwd=repo.top, stdin=asked)
    except NoRepositoryError:
        return set()
    answers = said.decode("utf-8", "replace").split("\n")
    return {path for path, answer in zip(askable, answers) if answer == "blob"}


def is_ignored(repo: Repo, path: Path) -> bool:
    """Whether git leaves this path alone."""
    try:
        run_git("check-ignore", "--quiet", "--", str(path), cwd=repo.top)
    except NoRepositoryError:
        return False
    return True
