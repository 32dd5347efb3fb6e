"""The pre-commit hook of git: ours beside whatever is there, never in its place."""

from __future__ import annotations

import re
from pathlib import Path

from kit.file_edits import FileEdits
from kit.main import BLOCKED_COMMIT_EXIT_CODE
from kit.repo import Repo, get_hooks_dir

BLOCK_BEGIN = "# >>> llm-bus >>>"
BLOCK_END = "# <<< llm-bus <<<"
MOVED_HOOK_NAME = "pre-commit.before-llm-bus"
_BLOCK_PATTERN = re.compile(
    rb"(?:\r?\n)?" + re.escape(BLOCK_BEGIN.encode()) + rb".*?" + re.escape(BLOCK_END.encode()) + rb"\r?\n", re.DOTALL
)
_SHELL_SHEBANG = re.compile(rb"#!\s*(?:\S*/)?(?:env\s+)?(?:\S*/)?(?:sh|bash|dash|ksh|zsh)\b")

# POSIX sh, which every git brings along. It blocks for our own code only: no Python, a broken Python, a branch without
# the kit all go on.
_HOOK_BLOCK = f"""\
{BLOCK_BEGIN}
# Numbers and leases of what is committed. Fail-open; to remove: python3 .llm-bus/kit uninstall
if [ -f .llm-bus/kit/__main__.py ]; then
  for llm_bus_python in python3 python; do
    if command -v "$llm_bus_python" >/dev/null 2>&1; then
      # On Windows python3 may be a stub that only points to a shop.
      if [ -n "${{WINDIR:-}}" ]; then "$llm_bus_python" -c "" >/dev/null 2>&1 || continue; fi
      llm_bus_code=0
      "$llm_bus_python" .llm-bus/kit pre-commit </dev/null || llm_bus_code=$?
      if [ "$llm_bus_code" -eq {BLOCKED_COMMIT_EXIT_CODE} ]; then exit 1; fi
      break
    fi
  done
fi
{BLOCK_END}
"""
_CHAIN_SCRIPT = f"""\
llm_bus_next="$(dirname "$0")/{MOVED_HOOK_NAME}"
if [ -x "$llm_bus_next" ]; then exec "$llm_bus_next" "$@"; fi
exit 0
"""


def install(repo: Repo, edits: FileEdits) -> None:
    """Put our block into the pre-commit hook that git runs here.

    A shell script gets it behind its first line, husky's in its own folder; anything else is put aside and called.
    """
    path = hook_path(repo)
    if path.is_symlink() or (path.exists() and not _is_shell_script(path.read_bytes())):
        edits.move_aside(path, path.with_name(MOVED_HOOK_NAME))
        edits.write(path, f"#!/bin/sh\n{_HOOK_BLOCK}{_CHAIN_SCRIPT}".encode(), remove_block, executable=True)
        return
    if not path.exists():
        first = b"" if path.parent.name == ".husky" else b"#!/bin/sh\n"
        edits.write(path, first + _HOOK_BLOCK.encode(), remove_block, executable=True)
        return
    held = path.read_bytes()
    clean = _BLOCK_PATTERN.sub(b"\n" if held.startswith(b"#!") else b"", held) if BLOCK_BEGIN.encode() in held else held
    ending = b"\r\n" if b"\r\n" in clean else b"\n"
    block = _HOOK_BLOCK.encode().replace(b"\n", ending)
    if clean.startswith(b"#!"):
        first, found, rest = clean.partition(b"\n")
        made = first + (found or b"\n") + block + rest
    else:
        made = block + clean
    edits.write(path, made, remove_block, executable=True)


def is_installed(repo: Repo) -> bool:
    """Whether the hook that git runs here is ours, or has our part."""
    path = hook_path(repo)
    return path.exists() and BLOCK_BEGIN.encode() in path.read_bytes()


def hook_path(repo: Repo) -> Path:
    """The file to change. With husky git runs wrappers that it makes anew; the hooks are one folder above."""
    folder = get_hooks_dir(repo)
    if folder.name == "_" and folder.parent.name == ".husky":
        folder = folder.parent
    return folder / "pre-commit"


def remove_block(content: bytes) -> bytes | None:
    """A hook without our part; None if that was all of it."""
    left = _BLOCK_PATTERN.sub(b"\n" if content.startswith(b"#!") else b"", content)
    left = left.replace(_CHAIN_SCRIPT.encode(), b"")
    return None if left.strip() in (b"", b"#!/bin/sh") else left


def _is_shell_script(content: bytes) -> bool:
    # A hook of husky has no first line of that kind; sh runs it.
    return bool(_SHELL_SHEBANG.match(content)) or (not content.startswith(b"#!") and b"\0" not in content)
