"""Files of the data folder: atomic private files, secrets and logs."""

import contextlib
import os
import secrets
import shutil
from pathlib import Path

_MAX_LOG_BYTES = 10 * 1024 * 1024


def write_private(path: Path, text: str) -> None:
    """Replace the content of `path` atomically, with mode 0600.

    If the process runs as root, the file is given to the owner of its folder, who could not read it otherwise.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        chown_to_parent_owner(draft)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_private_if_changed(path: Path, text: str) -> None:
    """Like `write_private`, but do nothing if the file has this content, so that a restart needs no disk space."""
    try:
        if path.read_text(encoding="utf-8") == text:
            return
    except (OSError, ValueError):
        pass
    write_private(path, text)


def read_or_create_secret(path: Path) -> str:
    """Return the secret in `path`; the first call creates it from 32 random characters."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        secret = secrets.token_urlsafe(24)
        write_private(path, secret + "\n")
        return secret


def chown_to_parent_owner(path: Path) -> None:
    """If the process runs as root, give a new file to the owner of its folder."""
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.chown(path, folder.st_uid, folder.st_gid)


def start_new_log(log_dir: Path, name: str, *, keep: int = 3) -> Path:
    """Begin a new log and keep the last `keep` ones as NAME.log.1 (the newest), NAME.log.2, ...

    On a full disk the program starts nevertheless, and its output is appended to the present log or lost.
    """
    log = log_dir / f"{name}.log"
    with contextlib.suppress(OSError):
        if log.exists() and log.stat().st_size:
            for number in range(keep, 1, -1):
                older = log_dir / f"{name}.log.{number - 1}"
                if older.exists():
                    older.replace(log_dir / f"{name}.log.{number}")
            log.replace(log_dir / f"{name}.log.1")
        log.touch(mode=0o600)
        chown_to_parent_owner(log)
    return log


def truncate_oversized_log(log: Path, max_bytes: int = _MAX_LOG_BYTES) -> None:
    """Move the content of `log` to NAME.log.1 if it exceeds `max_bytes`, while its process continues to write.

    The writer keeps its file descriptor, opened for appending, so after the truncation it writes at the start
    again. Lines written between copy and truncation are lost, which is acceptable for a bound on disk space.
    """
    older = log.with_name(f"{log.name}.1")
    # A full disk must not end the supervisor; the next check tries again.
    with contextlib.suppress(OSError):
        if log.stat().st_size <= max_bytes:
            return
        try:
            shutil.copyfile(log, older)
        except OSError:
            # There is no room for a copy. Keeping the log would keep the disk full.
            older.unlink(missing_ok=True)
        os.truncate(log, 0)
