"""What the installer changes, written down so that it can be taken back to the byte.

The list of changes lies inside .git, with what each file held before. A file that nobody touched since gets that back;
from one that somebody did, only our part is taken out.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# From what a file holds to what it would hold without us; None if nothing would be left of it.
Remover = Callable[[bytes], "bytes | None"]


@dataclass
class FileRecord:
    """A file that we changed: what it was (None: not there), and the hash of what we left."""

    original: bytes | None
    written_hash: str
    original_mode: int | None
    created_folders: list[str]


class FileEdits:
    """The changes of one work tree, read from and written to `ledger`."""

    def __init__(self, record_path: Path, *, dry_run: bool) -> None:
        self.dry_run = dry_run
        self.messages: list[str] = []
        self._record_path = record_path
        self._records: dict[str, FileRecord] = {}
        self._moved_files: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            self._load(json.loads(record_path.read_text("utf-8")))

    def is_ours(self, path: Path) -> bool:
        """Whether we changed this file before."""
        return str(path) in self._records

    def write(self, path: Path, data: bytes, remover: Remover, *, executable: bool = False) -> None:
        """Let a file hold `data`; says what that changed."""
        held = _read_or_none(path)
        if held == data:
            self.messages.append(f"= {_display_path(path)}")
            return
        self.messages.append(f"{'+' if held is None else '~'} {_display_path(path)}")
        if self.dry_run:
            return
        folders = _create_folders(path.parent)
        entry = self._records.get(str(path))
        if entry is None:
            entry = FileRecord(held, "", _file_mode(path), folders)
        elif held is not None and _sha256(held) != entry.written_hash:
            # Changed by somebody since: what is to come back is theirs, without what was ours in it.
            entry.original = remover(held)
        _replace_file(path, data, executable)
        entry.written_hash = _sha256(data)
        self._records[str(path)] = entry
        self.save()

    def move_aside(self, path: Path, to: Path) -> None:
        """Put a file of the user's aside, and remember to bring it back."""
        self.messages.append(f"~ {_display_path(path)} -> {to.name}")
        if self.dry_run:
            return
        os.rename(path, to)
        self._moved_files[str(path)] = str(to)
        self.save()

    def forget(self, path: Path) -> None:
        """Say of a file that it is not ours any more."""
        self._records.pop(str(path), None)

    def undo(self, removers: Callable[[Path], Remover]) -> None:
        """Take everything back; what cannot be is named, and the rest goes on."""
        for name, entry in reversed(list(self._records.items())):
            path = Path(name)
            try:
                self._restore(path, entry, removers(path))
            except OSError as error:
                self.messages.append(f"! {_display_path(path)}: {error}")
        for name, moved in self._moved_files.items():
            path, aside = Path(name), Path(moved)
            if (aside.exists() or aside.is_symlink()) and not path.exists():
                self.messages.append(f"~ {aside.name} -> {_display_path(path)}")
                if not self.dry_run:
                    os.rename(aside, path)
        if not self.dry_run:
            self._record_path.unlink(missing_ok=True)

    def save(self) -> None:
        """Write the list of changes."""
        if self.dry_run:
            return
        self._record_path.parent.mkdir(parents=True, exist_ok=True)
        found = {
            "files": {
                name: {
                    "before": None if entry.original is None else base64.b64encode(entry.original).decode(),
                    "after": entry.written_hash,
                    "mode": entry.original_mode,
                    "folders": entry.created_folders,
                }
                for name, entry in self._records.items()
            },
            "moves": self._moved_files,
        }
        _replace_file(self._record_path, json.dumps(found, indent=1).encode(), False, private=True)

    def _load(self, found: Any) -> None:
        for name, entry in found["files"].items():
            before = None if entry["before"] is None else base64.b64decode(entry["before"])
            self._records[name] = FileRecord(before, entry["after"], entry["mode"], list(entry["folders"]))
        self._moved_files = dict(found["moves"])

    def _restore(self, path: Path, record: FileRecord, remover: Remover) -> None:
        held = _read_or_none(path)
        if held is None:
            return
        untouched = _sha256(held) == record.written_hash
        left = record.original if untouched else remover(held)
        # A file that was not there, and of which nothing is left but brackets or blanks, goes.
        gone = left is None or (record.original is None and not left.strip(b"{}[] \t\r\n"))
        self.messages.append(
            f"{'-' if gone else '~'} {_display_path(path)}{'' if untouched else ' (changed since: only our part)'}"
        )
        if self.dry_run:
            return
        if gone:
            path.unlink()
            for folder in reversed(record.created_folders):
                try:
                    os.rmdir(folder)
                except OSError:
                    break
        else:
            assert left is not None
            _replace_file(path, left, False)
            if record.original_mode is not None and os.name == "posix":
                path.chmod(record.original_mode)


def _read_or_none(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _file_mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None


def _create_folders(folder: Path) -> list[str]:
    """Make a folder; returns those that were not there, outermost first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir()
    return [str(each) for each in reversed(missing)]


def _replace_file(path: Path, data: bytes, executable: bool, *, private: bool = False) -> None:
    """Write a file in one step: a reader sees the old or the new, and a link stays a link."""
    target = Path(os.path.realpath(path))
    mode = _file_mode(target)
    handle, name = tempfile.mkstemp(prefix=".llm-bus-", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
        if os.name == "posix":
            wanted = 0o600 if private else mode if mode is not None else 0o666 & ~_umask()
            os.chmod(name, wanted | (0o111 & ~_umask() if executable else 0))
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _display_path(path: Path) -> str:
    try:
        return os.path.relpath(path)
    except ValueError:
        return str(path)
