"""The pre-commit hook of git: added beside an existing hook, never in its place."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from kit import exit_codes, hook_managers, marks, text_files
from kit.file_edits import FileEdits
from kit.repo import Repo

BLOCK_BEGIN = "# >>> llm-bus >>>"
BLOCK_END = "# <<< llm-bus <<<"
# Beside the hooks folder, so that relative links and paths in a moved hook still lead where they led.
_MOVED_FOLDER_SUFFIX = ".before-llm-bus"
# Versions before 1.1 moved a hook aside under this name, in the same folder.
_OLD_MOVED_NAME = "pre-commit.before-llm-bus"
_NAMES = ("pre-commit", *(f"pre-commit{suffix}" for suffix in hook_managers.MOVED_SUFFIXES))
_SHELL_SHEBANG = re.compile(rb"#!\s*(?:\S*/)?(?:env\s+)?(?:\S*/)?(?:sh|bash|dash|ksh|zsh)\b")
# A script of two languages, or one that reads itself, does not bear further lines.
_OWN_FOLDER = re.compile(rb"(?:dirname|basename)\s+(?:--\s+)?[\"']?\$(?:0|\{0\})|\$\{0[%#]")
_OWN_TEXT = re.compile(
    rb"\$(?:0|\{0)|BASH_SOURCE|^\s*(?:'{3}|\"{3}|\"exec\"|'exec')|\beval 'exec|\\\r?\n\s*exec\b", re.MULTILINE
)

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
_CHAIN_SCRIPT = """\
# The hook that was here before: with its own name, arguments, input and environment.
llm_bus_next="$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)@SUFFIX@/@NAME@"
if [ -x "$llm_bus_next" ]; then exec "$llm_bus_next" "$@"; fi
exit 0
""".replace("@SUFFIX@", _MOVED_FOLDER_SUFFIX)
_OLD_CHAIN_SCRIPT = f"""\
llm_bus_next="$(dirname "$0")/{_OLD_MOVED_NAME}"
if [ -x "$llm_bus_next" ]; then exec "$llm_bus_next" "$@"; fi
exit 0
"""


def install(repo: Repo, edits: FileEdits) -> None:
    """Add the kit's block to the pre-commit hook of a work tree, or to what its hook manager keeps.

    The block goes behind the first line of a shell script. Any other hook is moved into a folder beside the hooks,
    where it keeps its name, and the new hook runs it.
    """
    place = hook_managers.find_place(repo)
    if place.problem:
        edits.leave(place.folder, place.problem)
        return
    script = place.folder / "pre-commit"
    if outdated := hook_managers.find_outdated_line(repo):
        reason = f"it runs .llm-bus/kit, which is no longer there; replace that by: {hook_managers.SHARED_COMMAND}"
        edits.leave(outdated, reason)
    if place.is_configured:
        edits.messages.append(f"= {place.manager} runs the check, by {place.configuration}")
    if (place.runs_legacy_hook or place.manager == "lefthook") and place.is_active and has_block(script):
        with edits.place(script):
            # The manager writes this file again, without the kit's part.
            edits.write(script, remove_part(edits.read(script) or b"", None) or b"#!/bin/sh\n", remove_part)
    if place.is_configured:
        return
    if place.manager == "lefthook" and _install_into_lefthook(repo, edits, place):
        return
    path = script.with_name("pre-commit.legacy") if place.runs_legacy_hook else script
    with edits.place(path):
        _add_block(edits, path, is_husky=place.manager == "husky")


def uninstall(repo: Repo, edits: FileEdits) -> None:
    """Remove the kit's part from every hook in which it is, also where another manager has moved it."""
    for folder in hook_managers.list_hook_folders(repo):
        moved_folder = _moved_folder(folder)
        target = folder / "pre-commit"
        for path in (folder / name for name in reversed(_NAMES)):
            with edits.place(path):
                content = b"" if path.is_symlink() else edits.read(path) or b""
                if BLOCK_BEGIN.encode() in content and _runs_moved_hook(content):
                    target = path
                edits.remove_part(path, remove_part)
        for moved in (moved_folder / "pre-commit", moved_folder / "pre-commit.legacy", folder / _OLD_MOVED_NAME):
            if os.path.lexists(moved) and not edits.dry_run:
                with edits.place(moved):
                    _move_back(edits, moved, folder / moved.name if moved.suffix == ".legacy" else target)
        if not edits.dry_run:
            _remove_moved_folder(moved_folder)
    path = repo.top / hook_managers.LEFTHOOK_LOCAL
    with edits.place(path):
        edits.remove_part(path, remove_lefthook_part)


def remember(repo: Repo, *, is_wanted: bool) -> None:
    """Record whether the commits of a clone are to be checked, so that a session can say when they no longer are."""
    path = _wanted_path(repo)
    if is_wanted:
        path.touch()
    else:
        path.unlink(missing_ok=True)


def describe_loss(repo: Repo) -> str:
    """Describe why the commits of a clone are no longer checked; empty if they are, or were not to be."""
    if not _wanted_path(repo).exists():
        return ""
    detail, fix = describe(repo)
    return detail if fix else ""


def _wanted_path(repo: Repo) -> Path:
    return repo.common_dir / "llm-bus" / "commit-check"


def describe(repo: Repo) -> tuple[str, str]:
    """Describe what a commit runs. Returns what is true, and what to do; an empty text for nothing."""
    return hook_managers.describe(repo, has_block)


def has_block(path: Path) -> bool:
    """Whether a hook is a file with the kit's block."""
    try:
        return BLOCK_BEGIN.encode() in path.read_bytes()
    except OSError:
        return False


def remove_part(content: bytes, original: bytes | None) -> bytes | None:
    """Return a hook without the kit's part; None if nothing else is left."""
    if BLOCK_BEGIN.encode() not in content:
        return content
    text = text_files.decode_any(content)
    text = marks.remove_blocks(text, BLOCK_BEGIN, BLOCK_END, [_inner_block()], has_gap=False)
    for chain in (*(_CHAIN_SCRIPT.replace("@NAME@", name) for name in _NAMES), _OLD_CHAIN_SCRIPT):
        text = text.replace(chain, "")
    return None if text.strip() in ("", "#!/bin/sh") else text_files.encode_any(text)


def remove_lefthook_part(content: bytes, original: bytes | None) -> bytes | None:
    """Return a configuration of lefthook without the kit's entry; None if nothing else is left."""
    text = marks.remove_blocks(text_files.decode(content), BLOCK_BEGIN, BLOCK_END, [hook_managers.lefthook_entry()])
    return None if text_files.is_blank(text) else text.encode("utf-8")


def _inner_block() -> str:
    return "\n".join(_HOOK_BLOCK.splitlines()[1:-1])


def _runs_moved_hook(content: bytes) -> bool:
    return f"{_MOVED_FOLDER_SUFFIX}/".encode() in content or _OLD_MOVED_NAME.encode() in content


def _install_into_lefthook(repo: Repo, edits: FileEdits, place: hook_managers.HookPlace) -> bool:
    """Write the check into lefthook's configuration for this clone. Returns whether a commit runs it now."""
    path = repo.top / hook_managers.LEFTHOOK_LOCAL
    with edits.place(path):
        other = hook_managers.find_other_lefthook_local(repo)
        content = edits.read(path)
        text = "" if content is None else text_files.decode(content)
        if other is not None or not hook_managers.can_append_hook(text, BLOCK_BEGIN):
            raise marks.MarkError(
                f"add this to the commands of pre-commit in {(other or path).name}:\n{hook_managers.lefthook_command()}"
            )
        entry = hook_managers.lefthook_entry()
        changed = marks.insert_block(text, entry, BLOCK_BEGIN, BLOCK_END, [entry])
        edits.write(path, changed.encode("utf-8"), remove_lefthook_part)
        return place.is_active
    return False


def _add_block(edits: FileEdits, path: Path, *, is_husky: bool) -> None:
    content = None if path.is_symlink() else edits.read(path)
    moved_path = _moved_folder(path.parent) / path.name
    if content is not None and BLOCK_BEGIN.encode() in content:
        old_moved = path.with_name(_OLD_MOVED_NAME)
        if _OLD_MOVED_NAME.encode() in content and os.path.lexists(old_moved):
            _move_into_folder(edits, old_moved, moved_path)
            edits.write(path, _wrapper(path.name), remove_part, executable=True)
            return
    elif path.is_symlink() or (content is not None and not is_husky and not _bears_lines(path, content)):
        _move_into_folder(edits, path, moved_path)
        edits.write(path, _wrapper(path.name), remove_part, executable=True)
        return
    if content is None:
        shebang = b"" if is_husky else b"#!/bin/sh\n"
        edits.write(path, shebang + _HOOK_BLOCK.encode(), remove_part, executable=True)
        return
    text = text_files.decode_any(content)
    block = _HOOK_BLOCK.replace("\n", text_files.detect_newline(text))
    if marks.find_blocks(text, BLOCK_BEGIN, BLOCK_END):
        text = marks.insert_block(text, _inner_block(), BLOCK_BEGIN, BLOCK_END, [_inner_block()])
    elif text.startswith("#!"):
        shebang_line, newline, rest = text.partition("\n")
        text = shebang_line + (newline or "\n") + block + rest
    else:
        text = block + text
    edits.write(path, text_files.encode_any(text), remove_part, executable=True)


def _wrapper(name: str) -> bytes:
    return f"#!/bin/sh\n{_HOOK_BLOCK}{_CHAIN_SCRIPT.replace('@NAME@', name)}".encode()


def _moved_folder(folder: Path) -> Path:
    return folder.with_name(folder.name + _MOVED_FOLDER_SUFFIX)


def _move_into_folder(edits: FileEdits, path: Path, new_path: Path) -> None:
    """Move a hook into a folder in which it finds the files that were beside it, through links."""
    if os.path.lexists(new_path):
        raise marks.MarkError(f"another hook is in {new_path}; remove one of them")
    edits.move_aside(path, new_path)
    if edits.dry_run:
        return
    for sibling in sorted(path.parent.iterdir()):
        link = new_path.parent / sibling.name
        if sibling.name.startswith("pre-commit") or sibling.suffix == ".sample" or os.path.lexists(link):
            continue
        try:
            link.symlink_to(os.path.relpath(sibling, new_path.parent))
        except OSError:
            # Windows without the right to create links: a hook that reads no other file still runs.
            return


def _move_back(edits: FileEdits, moved: Path, target: Path) -> None:
    if os.path.lexists(target):
        raise marks.MarkError(f"another hook is in {target}, so this one stays here")
    os.rename(moved, target)
    edits.messages.append(f"~ {moved.parent.name}/{moved.name} -> {target.name}")


def _remove_moved_folder(folder: Path) -> None:
    """Remove the folder of moved hooks with the links in it, unless something else is left."""
    if not folder.is_dir():
        return
    paths = list(folder.iterdir())
    if all(path.is_symlink() and not path.name.startswith("pre-commit") for path in paths):
        for path in paths:
            path.unlink()
        folder.rmdir()


def _bears_lines(path: Path, content: bytes) -> bool:
    """Whether further lines behind the first one leave the meaning of a hook as it is."""
    if os.name == "posix" and not os.access(path, os.X_OK):
        # git ignores a hook that is not executable; with the kit's lines it would run.
        return False
    if not path.stat().st_mode & stat.S_IWUSR:
        # Moving leaves a protected file as it is.
        return False
    is_shell = bool(_SHELL_SHEBANG.match(content)) or not content.startswith(b"#!")
    return is_shell and b"\0" not in content and not _OWN_TEXT.search(_OWN_FOLDER.sub(b"", content))
