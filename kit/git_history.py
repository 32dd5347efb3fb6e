"""Where the files of a commit come from: the staged changes, and what other refs and the history have.

A file that a merge, a squash, a cherry-pick, a checkout of a path or a patch brings was committed elsewhere before, so
its origin is judged by path and content on every ref, not by the tree of HEAD.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kit import globs
from kit.repo import NoRepositoryError, Repo, run_git

_MAX_REFS = 1000
# States of HEAD that are compared: a reset or a deleted branch leaves commits that only these have.
_MAX_HEAD_STATES = 100
_WILDCARD = re.compile(r"[*?\[]")
# A stash has what was never committed, so nothing has checked its numbers; notes name objects.
_SKIPPED_REFS = ("refs/stash", "refs/notes/")
_BRANCH_PREFIXES = ("refs/heads/", "refs/remotes/")
# During a merge, rebase, cherry-pick or revert these name the other side.
_OTHER_SIDES = (
    "ORIG_HEAD",
    "FETCH_HEAD",
    "MERGE_HEAD",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "REBASE_HEAD",
    "rebase-merge/orig-head",
    "rebase-apply/orig-head",
)
# A squash merge lists the commits that it brings, the newest first.
_SQUASHED_COMMIT = re.compile(r"commit ([0-9a-f]{40}(?:[0-9a-f]{24})?)$", re.MULTILINE)
_RAW_OPTIONS = ("--raw", "--no-abbrev", "-z", "--no-ext-diff", "--ignore-submodules")
_OBJECT_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\b")


@dataclass(frozen=True)
class StagedChange:
    """A staged change.

    Attributes:
        is_new: whether the path is not in HEAD.
        old_path: the old path of a rename.
        blob: the staged content; zeros for a deletion.
    """

    path: str
    is_new: bool
    old_path: str | None = None
    blob: str = ""
    is_deleted: bool = False


@dataclass(frozen=True)
class KnownFile:
    """A file that another ref has and HEAD has not.

    Attributes:
        branch: the branch whose newest commit has it; empty if it is only in an earlier state, a tag or similar.
    """

    path: str
    blob: str
    branch: str = ""


def list_staged_changes(repo: Repo) -> list[StagedChange]:
    """List the staged changes, with paths as the repository spells them."""
    output = run_git("diff", "--cached", "-M", *_RAW_OPTIONS, cwd=repo.top)
    return _parse_changes(output)


def list_unstaged_changes(repo: Repo, folder: Path, pathspecs: Iterable[str]) -> list[StagedChange]:
    """List the changes of tracked files that are not staged.

    Args:
        folder: the folder to which the pathspecs are relative.
    """
    # Paths are relative to the root of the work tree, also if the user's configuration says otherwise.
    options = ("-c", "diff.relative=false", "diff", "--no-renames", *_RAW_OPTIONS)
    return _parse_changes(run_git(*options, "--", *pathspecs, cwd=folder))


def _parse_changes(output: bytes) -> list[StagedChange]:
    fields = iter(os.fsdecode(output).split("\0"))
    changes: list[StagedChange] = []
    for header in fields:
        if not header.startswith(":"):
            continue
        _, _, _, blob, status = header.split(" ")
        path = next(fields)
        if status[0] in "RC":
            changes.append(StagedChange(next(fields), True, path if status[0] == "R" else None, blob))
        else:
            changes.append(StagedChange(path, status == "A", blob=blob, is_deleted=status == "D"))
    return changes


def is_in_head(repo: Repo, path: str) -> bool:
    """Whether HEAD has a file of this path."""
    try:
        return bool(run_git("ls-tree", "-z", "--full-tree", "HEAD", "--", _literal(path), cwd=repo.top))
    except NoRepositoryError:
        return False


def is_staged(repo: Repo, path: str) -> bool:
    """Whether the index has a file of this path."""
    return bool(run_git("ls-files", "-z", "--", _literal(path), cwd=repo.top))


def hash_file(repo: Repo, path: str) -> str:
    """Return the id of the content of a file in the work tree; empty if it cannot be read."""
    try:
        return run_git("hash-object", "--", path, cwd=repo.top).decode("ascii", "replace").strip()
    except NoRepositoryError:
        return ""


def list_index(repo: Repo, pathspecs: Iterable[str], *, with_work_tree: bool = False) -> list[str]:
    """List the paths in the index, which are those of the next commit.

    Args:
        with_work_tree: whether to add files of the work tree that are not ignored.
    """
    options = ("--others", "--exclude-standard") if with_work_tree else ()
    output = run_git("ls-files", "-z", "--cached", *options, "--", *pathspecs, cwd=repo.top)
    return list(dict.fromkeys(path for path in os.fsdecode(output).split("\0") if path))


def list_elsewhere(repo: Repo, pathspecs: Iterable[str]) -> list[KnownFile]:
    """List the files that HEAD has not, and a branch, a tag, the other side of a merge or an earlier HEAD has."""
    trees = _list_trees(repo)
    try:
        head_tree = run_git("rev-parse", "--verify", "-q", "HEAD^{tree}", cwd=repo.top).decode().strip()
    except NoRepositoryError:
        head_tree = run_git("hash-object", "-t", "tree", "--stdin", cwd=repo.top, stdin=b"").decode().strip()
    trees.pop(head_tree, None)
    if not trees:
        return []
    pairs = "".join(f"{head_tree} {tree}\n" for tree in trees).encode()
    options = ("--stdin", "-r", "-z", "--raw", "--no-abbrev", "--no-renames", "--diff-filter=A", "--no-ext-diff")
    output = run_git("diff-tree", *options, "--", *pathspecs, cwd=repo.top, stdin=pairs)
    files: list[KnownFile] = []
    branch = ""
    fields = iter(os.fsdecode(output).split("\0"))
    for field in fields:
        # git writes a line with both trees before the first file of each pair.
        *pair_lines, header = field.split("\n")
        if pair_lines:
            branch = trees.get(pair_lines[-1].split(" ")[-1], "")
        if header.startswith(":"):
            files.append(KnownFile(next(fields), header.split(" ")[3], branch))
    return files


def list_history(repo: Repo, pathspecs: Iterable[str], seconds: float) -> list[KnownFile]:
    """List the files that any commit of a ref has added; nothing if that takes longer than `seconds`."""
    options = ("--full-history", "--raw", "--no-abbrev", "-z", "--no-renames", "--diff-filter=A", "--format=")
    arguments = ("log", "--exclude=refs/stash", "--all", *options, "--no-ext-diff", "--", *pathspecs)
    try:
        output = run_git(*arguments, cwd=repo.top, timeout_seconds=seconds)
    except NoRepositoryError:
        return []
    fields = iter(os.fsdecode(output).split("\0"))
    headers = (field.lstrip("\n") for field in fields)
    return [KnownFile(next(fields), header.split(" ")[3]) for header in headers if header.startswith(":")]


def build_pathspecs(patterns: Iterable[str]) -> list[str]:
    """Build pathspecs of git that match at least the files of these globs."""
    pathspecs: dict[str, None] = {}
    for pattern in patterns:
        for alternative in globs.expand_alternatives(pattern):
            segments = [segment for segment in alternative.split("/") if segment not in ("", ".")]
            magic = "glob"
            if "[" in alternative or "\\" in alternative:
                # git reads these differently: take the folder before the first wildcard.
                magic = "literal"
                count = next((i for i, segment in enumerate(segments) if _WILDCARD.search(segment)), len(segments))
                segments = segments[:count]
            pathspecs[f":(top,{magic}){'/'.join(segments)}" if segments else ":(top)"] = None
    return list(pathspecs)


def list_own_branches(repo: Repo) -> tuple[str, ...]:
    """List endings of the names of the current branch and of the branches that it is pushed to."""
    try:
        branch = os.fsdecode(run_git("symbolic-ref", "-q", "HEAD", cwd=repo.top)).strip()
        upstream = os.fsdecode(run_git("for-each-ref", "--format=%(upstream)", branch, cwd=repo.top)).strip()
    except NoRepositoryError:
        return ()
    name, upstream_name = _branch_name(branch), _branch_name(upstream)
    return (f"/{name}", upstream_name) if upstream_name else (f"/{name}",)


def _literal(path: str) -> str:
    return f":(top,literal){path}"


def _branch_name(ref: str) -> str:
    return next((ref[len(prefix) :] for prefix in _BRANCH_PREFIXES if ref.startswith(prefix)), "")


def _list_trees(repo: Repo) -> dict[str, str]:
    """List the trees of all refs, of the other side of a merge and of the last states of HEAD, with their branch."""
    trees: dict[str, str] = {}
    arguments = ("--sort=-committerdate", f"--count={_MAX_REFS}", "--format=%(refname)%00%(tree)%00%(*tree)")
    for line in os.fsdecode(run_git("for-each-ref", *arguments, cwd=repo.top)).splitlines():
        ref, tree, tagged_tree = line.split("\0")
        if (tree or tagged_tree) and not ref.startswith(_SKIPPED_REFS):
            # The first is the branch with the newest commit.
            name = trees.get(tree or tagged_tree, "") or _branch_name(ref)
            trees[tree or tagged_tree] = name
    for tree in [*_list_head_trees(repo), *_list_other_sides(repo)]:
        trees.setdefault(tree, "")
    return trees


def _list_head_trees(repo: Repo) -> list[str]:
    try:
        output = run_git("log", "-g", f"--max-count={_MAX_HEAD_STATES}", "--format=%T", "HEAD", "--", cwd=repo.top)
    except NoRepositoryError:
        # There is no log of HEAD, or no commit.
        return []
    return output.decode("ascii", "replace").split()


def _list_other_sides(repo: Repo) -> list[str]:
    names: list[str] = []
    for name in _OTHER_SIDES:
        names += [f"{commit}^" if name == "REVERT_HEAD" else commit for commit in _read_commits(repo, name)]
    names += _list_worktree_heads(repo)
    if squashed := _SQUASHED_COMMIT.search(_read_text(repo.git_dir / "SQUASH_MSG")):
        names.append(squashed[1])
    if not names:
        return []
    queries = "".join(f"{name}^{{tree}}\n" for name in names).encode()
    try:
        output = run_git("cat-file", "--batch-check=%(objectname)", cwd=repo.top, stdin=queries)
    except NoRepositoryError:
        return []
    return [line for line in output.decode("ascii", "replace").splitlines() if _OBJECT_ID.fullmatch(line)]


def _list_worktree_heads(repo: Repo) -> list[str]:
    """List the commits of worktrees that are on no branch."""
    heads = [repo.common_dir / "HEAD", *(repo.common_dir / "worktrees").glob("*/HEAD")]
    return [commit for head in heads for commit in _read_ids(head)]


def _read_commits(repo: Repo, name: str) -> list[str]:
    return _read_ids(repo.git_dir / name)


def _read_ids(path: os.PathLike[str]) -> list[str]:
    return [match.group() for match in map(_OBJECT_ID.match, _read_text(path).splitlines()) if match]


def _read_text(path: os.PathLike[str]) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(1024 * 1024)
    except OSError:
        return ""
