"""Changes of single files: atomic, with the mode and the owner that they had."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path


class ProtectedFileError(ValueError):
    """A file that is not to be changed; the message says why."""


def is_executable(path: Path) -> bool:
    """Whether git and the shell run a file."""
    return os.name != "posix" or bool(path.stat().st_mode & 0o100)


def refuse_protected(target: Path) -> None:
    """Refuse a file that its owner has protected, or that has another name which would not get the change."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return
    if not status.st_mode & stat.S_IWUSR:
        raise ProtectedFileError("the file is read-only")
    if status.st_nlink > 1:
        raise ProtectedFileError("the file has several names (hard links)")


def file_mode(path: Path) -> int | None:
    """Return the permissions of a file; None if there is none."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None


def create_folders(folder: Path) -> list[str]:
    """Create a folder and its parents. Returns the created ones, outermost first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for missing_folder in reversed(missing):
        missing_folder.mkdir()
    return [str(missing_folder) for missing_folder in reversed(missing)]


def remove_empty_folders(folders: list[str]) -> None:
    """Remove folders from the innermost outwards, until one is not empty."""
    for folder in reversed(folders):
        try:
            os.rmdir(folder)
        except OSError:
            break


def replace_file(path: Path, data: bytes, executable: bool, *, private: bool = False) -> None:
    """Write a file atomically, so that readers see the old or the new content; a symbolic link stays one."""
    target = Path(os.path.realpath(path))
    old_mode = file_mode(target)
    handle, temporary_name = tempfile.mkstemp(prefix=".llm-bus-", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as temporary_file:
            temporary_file.write(data)
            temporary_file.flush()
            os.fsync(temporary_file.fileno())
        _keep_owner(target, temporary_name)
        if os.name == "posix":
            mode = 0o600 if private else old_mode if old_mode is not None else 0o666 & ~_umask()
            os.chmod(temporary_name, mode | (0o111 & ~_umask() if executable else 0))
        os.replace(temporary_name, target)
    except BaseException:
        Path(temporary_name).unlink(missing_ok=True)
        raise


def _keep_owner(target: Path, temporary_name: str) -> None:
    """Give a new file the owner of the one that it replaces, where the installer may."""
    if hasattr(os, "chown"):
        with contextlib.suppress(OSError):
            status = target.stat()
            os.chown(temporary_name, status.st_uid, status.st_gid)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
