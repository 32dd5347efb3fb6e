"""The commit that a shell command makes, for clients whose shell runs no hooks of git.

Understands what agents write, such as `cd src && git add -A && git commit -m "work"`. What it does not understand adds
nothing to the staged files.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from kit import git_history
from kit.git_history import StagedChange
from kit.repo import Repo, run_git

_SEPARATORS = ";&|()\n"
_REDIRECTIONS = "<>"
_HEREDOC = re.compile(r"<<-?[ \t]*(['\"]?)(\w+)\1(?=[^\n]*\n).*?\n[ \t]*\2(?=[\s;)]|\Z)", re.DOTALL)
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_ANY_COMMIT = re.compile(r"\bgit\b[^\n;&|]*\scommit\b")
# Options of git and of `git commit` whose value is the next word.
_GIT_OPTIONS_WITH_VALUE = ("-C", "-c", "--git-dir", "--work-tree", "--namespace")
_COMMIT_OPTIONS_WITH_VALUE = ("--message", "--file", "--author", "--date", "--template", "--trailer", "--cleanup")
_COMMIT_FLAGS_WITH_VALUE = "mFCct"


@dataclass(frozen=True)
class PlannedCommit:
    """A commit that a command is about to make.

    Attributes:
        folder: the folder in which git runs.
        additions: (folder, pathspecs) of each `git add` before the commit.
        includes_tracked: whether changes of tracked files are committed without being staged.
        variables: the environment variables that the command sets for the commit.
    """

    folder: Path
    additions: tuple[tuple[Path, tuple[str, ...]], ...] = ()
    includes_tracked: bool = False
    variables: dict[str, str] = field(default_factory=dict)


def find_commit(command: str, folder: Path) -> PlannedCommit | None:
    """Find the first commit in a command; None if it makes none, or one that asks for no hooks."""
    if "git" not in command or "commit" not in command:
        return None
    try:
        simple_commands = list(_split(command))
    except ValueError:
        # Quotes that only a shell understands.
        return PlannedCommit(folder) if _ANY_COMMIT.search(command) and "--no-verify" not in command else None
    additions: list[tuple[Path, tuple[str, ...]]] = []
    updates_tracked = False
    for words in simple_commands:
        variables = {}
        while words and (match := _ASSIGNMENT.fullmatch(words[0])):
            variables[match[1]] = match[2]
            words = words[1:]
        if words[:1] == ["cd"] and len(words) == 2:
            folder = folder / os.path.expanduser(words[1])
        if not words or os.path.basename(words[0]) not in ("git", "git.exe"):
            continue
        git_folder, name, arguments = _parse_git(words[1:], folder)
        if name in ("add", "stage"):
            if any(word in ("-u", "--update") for word in arguments):
                updates_tracked = True
            elif pathspecs := _parse_add(arguments):
                additions.append((git_folder, pathspecs))
        elif name == "commit":
            planned = _parse_commit(arguments)
            if planned is None:
                return None
            return replace(
                planned,
                folder=git_folder,
                additions=tuple(additions),
                includes_tracked=planned.includes_tracked or updates_tracked,
                variables=variables,
            )
    return None


def list_changes(work_tree: Repo, planned: PlannedCommit) -> list[StagedChange]:
    """List the changes that a commit will have: the staged ones, and those that the command stages."""
    changes = {change.path: change for change in git_history.list_staged_changes(work_tree)}
    requests = [*planned.additions, *([(planned.folder, (":/",))] if planned.includes_tracked else [])]
    for folder, pathspecs in requests:
        for change in git_history.list_unstaged_changes(work_tree, folder, pathspecs):
            changes[change.path] = replace(change, is_new=change.is_new or _is_new(changes, change.path))
    for folder, pathspecs in planned.additions:
        output = run_git(
            "ls-files", "-z", "--others", "--exclude-standard", "--full-name", "--", *pathspecs, cwd=folder
        )
        for path in os.fsdecode(output).split("\0"):
            if path:
                changes[path] = StagedChange(path, True)
    return list(changes.values())


def _is_new(changes: dict[str, StagedChange], path: str) -> bool:
    return path in changes and changes[path].is_new


def _split(command: str) -> Iterator[list[str]]:
    """Split a command line into simple commands, each a list of words without redirections.

    Raises:
        ValueError: a quote is not closed.
    """
    # The text of a message, with quotes of its own; what follows the mark on its line is dropped too.
    command = _HEREDOC.sub("", command.replace("\\\n", " "))
    lexer = shlex.shlex(command, posix=True, punctuation_chars=_SEPARATORS + _REDIRECTIONS)
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    is_target = False
    for token in lexer:
        if token and all(char in _SEPARATORS for char in token):
            yield words
            words = []
        elif token and all(char in _REDIRECTIONS + "&" for char in token):
            is_target = True
            continue
        elif not is_target:
            words.append(token)
        is_target = False
    yield words


def _parse_git(words: list[str], folder: Path) -> tuple[Path, str, list[str]]:
    """Return the folder in which git runs, the subcommand, and its arguments."""
    position = 0
    while position < len(words) and words[position].startswith("-"):
        if words[position] == "-C" and position + 1 < len(words):
            folder = folder / words[position + 1]
        position += 2 if words[position] in _GIT_OPTIONS_WITH_VALUE else 1
    return folder, words[position] if position < len(words) else "", words[position + 1 :]


def _parse_add(arguments: list[str]) -> tuple[str, ...]:
    pathspecs = [word for word in arguments if not word.startswith("-")]
    return tuple(pathspecs or ([":/"] if "-A" in arguments or "--all" in arguments else []))


def _parse_commit(arguments: list[str]) -> PlannedCommit | None:
    includes_tracked = False
    words = iter(arguments)
    for word in words:
        if word == "--":
            break
        if word in ("--no-verify", "--dry-run"):
            return None
        if word in ("--all", "--include", "--only"):
            includes_tracked = True
        elif word in _COMMIT_OPTIONS_WITH_VALUE:
            next(words, None)
        elif word.startswith("-") and not word.startswith("--"):
            for index, flag in enumerate(word[1:], 1):
                if flag == "n":
                    return None
                includes_tracked = includes_tracked or flag == "a"
                if flag in _COMMIT_FLAGS_WITH_VALUE:
                    if index == len(word) - 1:
                        next(words, None)
                    break
    return PlannedCommit(Path(), includes_tracked=includes_tracked)
