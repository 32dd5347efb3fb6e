"""The code of the kit inside .git. Git and the clients run this copy, never a file of the checked-out branch.

All worktrees share it, and a sparse checkout or a branch without the kit has it too. An update replaces it as a whole.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from kit import bundle, connection
from kit.file_edits import FileEdits
from kit.repo import Repo

# Where versions before 1.1 kept code, log and state: in the work tree.
OLD_FOLDER_NAME = ".llm-bus"


def code_folder(repo: Repo) -> Path:
    """Return the folder of the code; the hooks look for it there."""
    return repo.common_dir / "llm-bus" / "kit"


def command(repo: Repo, arguments: str) -> str:
    """Build the command line that runs the kit in a work tree, for people."""
    folder = code_folder(repo)
    if folder.parent.parent == Path(os.path.realpath(repo.top), ".git"):
        folder = Path(".git", "llm-bus", "kit")
    path = f'"{folder}"' if os.name == "nt" else shlex.quote(str(folder))
    return f"{'python' if sys.platform == 'win32' else 'python3'} {path} {arguments}"


def install(repo: Repo, edits: FileEdits, files: Mapping[str, str]) -> None:
    """Write the code into .git, and remove what an earlier version wrote into the work tree.

    Args:
        edits: the changes of the work tree, and the messages for the user.
        files: the text of each file by path, such as `kit/main.py`.
    """
    folder = code_folder(repo)
    contents = {name[len("kit/") :]: text.encode("utf-8") for name, text in files.items()}
    is_current = _read_code(folder) == contents
    is_update = folder.exists()
    shown = command(repo, "").split(" ", 1)[1].strip()
    edits.messages.append(f"{'=' if is_current else '~' if is_update else '+'} {shown} ({len(contents)} files)")
    if not is_current and not edits.dry_run:
        _replace_folder(folder, contents)
    _remove_old_folder(repo, edits)


def remove(repo: Repo) -> None:
    """Remove the code, the confirmed connection, the sessions, and the log and the state of this work tree."""
    shutil.rmtree(code_folder(repo), ignore_errors=True)
    shutil.rmtree(code_folder(repo).with_name("sessions"), ignore_errors=True)
    connection.connection_path(repo).unlink(missing_ok=True)
    githooks_marker = code_folder(repo).with_name("commit-check")
    githooks_marker.unlink(missing_ok=True)
    local_folder = repo.git_dir / "llm-bus"
    shutil.rmtree(local_folder / "state", ignore_errors=True)
    for path in (*local_folder.glob("journal.jsonl*"), local_folder / "redemption.json"):
        path.unlink(missing_ok=True)
    for folder in (local_folder, repo.common_dir / "llm-bus"):
        # Not empty if another worktree has saved a token.
        with contextlib.suppress(OSError):
            folder.rmdir()


def _read_code(folder: Path) -> dict[str, bytes]:
    """Read the files of the code by path; also those that are not of this version, but no compiled ones."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _replace_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Replace the folder at once, so that a hook that runs meanwhile sees one version or none."""
    new_folder, old_folder = (folder.with_name(f"{folder.name}.{part}-{os.getpid()}") for part in ("new", "old"))
    try:
        for name, content in sorted(contents.items()):
            path = new_folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if folder.exists():
            os.rename(folder, old_folder)
        os.rename(new_folder, folder)
    finally:
        for leftover in (new_folder, old_folder):
            shutil.rmtree(leftover, ignore_errors=True)


def _remove_old_folder(repo: Repo, edits: FileEdits) -> None:
    """Remove the code, the log and the state of an earlier version from the work tree; other files stay.

    An uninstall restores the removed code if the branch had it.
    """
    folder = repo.top / OLD_FOLDER_NAME
    if folder.is_symlink() or not folder.is_dir():
        return
    first_message = len(edits.messages)
    ignored = folder / ".gitignore"
    removable = [] if (folder / "kit").is_symlink() else bundle.list_paths(folder / "kit")
    if ignored.is_file() and ignored.read_bytes().startswith(b"# Written by the LLM Bus kit"):
        removable.append(ignored)
    for path in removable:
        if not path.is_symlink():
            edits.delete(path)
    removed_count = len(edits.messages) - first_message
    edits.messages[first_message:] = [f"- {OLD_FOLDER_NAME} ({removed_count} files)"] if removed_count else []
    if edits.dry_run:
        return
    for pattern in ("journal.jsonl*", "state/*", "kit/__pycache__/*"):
        for path in folder.glob(pattern):
            if path.is_file() and not path.parent.is_symlink():
                path.unlink()
    for name in ("state", "kit/__pycache__", "kit/blocks", "kit/okf", "kit", ""):
        with contextlib.suppress(OSError):
            (folder / name).rmdir()
