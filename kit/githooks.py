"""The pre-commit hook of git: added beside an existing hook, never in its place."""

from __future__ import annotations

import re
from pathlib import Path

from kit import exit_codes
from kit.file_edits import FileEdits
from kit.repo import Repo, get_hooks_dir

BLOCK_BEGIN = "# >>> llm-bus >>>"
BLOCK_END = "# <<< llm-bus <<<"
MOVED_HOOK_NAME = "pre-commit.before-llm-bus"
_BLOCK_PATTERN = re.compile(
    rb"(?:\r?\n)?" + re.escape(BLOCK_BEGIN.encode()) + rb".*?" + re.escape(BLOCK_END.encode()) + rb"\r?\n", re.DOTALL
)
_SHELL_SHEBANG = re.compile(rb"#!\s*(?:\S*/)?(?:env\s+)?(?:\S*/)?(?:sh|bash|dash|ksh|zsh)\b")

# POSIX sh, which comes with every git. It runs the kit inside .git, not a file of the checked-out branch. Only the
# reserved exit code blocks: without Python, with a broken Python or without the kit the commit proceeds.
_HOOK_BLOCK = f"""\
{BLOCK_BEGIN}
# Checks numbers and leases of the staged files. Fail-open; to remove: python3 .git/llm-bus/kit uninstall
llm_bus_kit="$(git rev-parse --git-common-dir 2>/dev/null || echo .git)/llm-bus/kit"
if [ -f "$llm_bus_kit/__main__.py" ]; then
  for llm_bus_python in python3 python; do
    if command -v "$llm_bus_python" >/dev/null 2>&1; then
      # On Windows python3 may be a stub that only opens the Microsoft Store.
      if [ -n "${{WINDIR:-}}" ]; then "$llm_bus_python" -c "" >/dev/null 2>&1 || continue; fi
      llm_bus_code=0
      # -I: no module of the work tree is imported.
      "$llm_bus_python" -I "$llm_bus_kit" pre-commit </dev/null || llm_bus_code=$?
      if [ "$llm_bus_code" -eq {exit_codes.BLOCKED_COMMIT} ]; then exit 1; fi
      break
    fi
  done
else
  echo "llm-bus: not checked: the kit is not in $llm_bus_kit; install it again." >&2
fi
{BLOCK_END}
"""
_CHAIN_SCRIPT = f"""\
llm_bus_next="$(dirname "$0")/{MOVED_HOOK_NAME}"
if [ -x "$llm_bus_next" ]; then exec "$llm_bus_next" "$@"; fi
exit 0
"""


def install(repo: Repo, edits: FileEdits) -> None:
    """Add the kit's block to the pre-commit hook of a work tree.

    The block goes behind the first line of a shell script, and into husky's own folder. Any other hook is moved aside,
    and the new hook calls it.
    """
    path = hook_path(repo)
    if path.is_symlink() or (path.exists() and not _is_shell_script(path.read_bytes())):
        edits.move_aside(path, path.with_name(MOVED_HOOK_NAME))
        edits.write(path, f"#!/bin/sh\n{_HOOK_BLOCK}{_CHAIN_SCRIPT}".encode(), remove_block, executable=True)
        return
    if not path.exists():
        shebang = b"" if path.parent.name == ".husky" else b"#!/bin/sh\n"
        edits.write(path, shebang + _HOOK_BLOCK.encode(), remove_block, executable=True)
        return
    content = path.read_bytes()
    if BLOCK_BEGIN.encode() in content:
        content = _BLOCK_PATTERN.sub(b"\n" if content.startswith(b"#!") else b"", content)
    block = _HOOK_BLOCK.encode().replace(b"\n", b"\r\n" if b"\r\n" in content else b"\n")
    if content.startswith(b"#!"):
        shebang, newline, rest = content.partition(b"\n")
        content = shebang + (newline or b"\n") + block + rest
    else:
        content = block + content
    edits.write(path, content, remove_block, executable=True)


def is_installed(repo: Repo) -> bool:
    """Whether the pre-commit hook of this work tree contains the kit's block."""
    path = hook_path(repo)
    return path.exists() and BLOCK_BEGIN.encode() in path.read_bytes()


def hook_path(repo: Repo) -> Path:
    """Return the hook file to change; with husky, whose wrappers are generated, the file in the folder above."""
    folder = get_hooks_dir(repo)
    if folder.name == "_" and folder.parent.name == ".husky":
        folder = folder.parent
    return folder / "pre-commit"


def remove_block(content: bytes) -> bytes | None:
    """Return a hook without the kit's part; None if nothing else is left."""
    rest = _BLOCK_PATTERN.sub(b"\n" if content.startswith(b"#!") else b"", content)
    rest = rest.replace(_CHAIN_SCRIPT.encode(), b"")
    return None if rest.strip() in (b"", b"#!/bin/sh") else rest


def _is_shell_script(content: bytes) -> bool:
    # A hook of husky has no shebang; sh runs it.
    return bool(_SHELL_SHEBANG.match(content)) or (not content.startswith(b"#!") and b"\0" not in content)
