"""A record of every change of the installer, so that uninstalling restores each file byte for byte.

The record is a file inside .git with the original content of each file. A file that is unchanged since the
installation gets that content back; from a file that was changed since, only the kit's part is removed.
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

# Maps the content of a file to its content without the kit's part; None if nothing else is left.
Remover = Callable[[bytes], "bytes | None"]
_DELETED = ""


@dataclass
class FileRecord:
    """A file that the kit changed.

    Attributes:
        original: the content before the first change; None if there was no file.
        written_hash: the hash of the written content; _DELETED if the kit deleted the file.
        original_mode: the permissions before the first change.
        created_folders: the folders that were created for the file, outermost first.
    """

    original: bytes | None
    written_hash: str
    original_mode: int | None
    created_folders: list[str]


class FileEdits:
    """The changes of one work tree, stored in the file `record_path`.

    Attributes:
        messages: one line for each change, for the user.
    """

    def __init__(self, record_path: Path, *, dry_run: bool) -> None:
        self.dry_run = dry_run
        self.messages: list[str] = []
        self._record_path = record_path
        self._records: dict[str, FileRecord] = {}
        self._moved_files: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            self._load(json.loads(record_path.read_text("utf-8")))

    def is_ours(self, path: Path) -> bool:
        """Whether the kit changed this file before."""
        return str(path) in self._records

    def write(self, path: Path, data: bytes, remover: Remover, *, executable: bool = False) -> None:
        """Write a file and record its original content; does nothing if the content is the same."""
        content = _read_or_none(path)
        if content == data:
            self.messages.append(f"= {_display_path(path)}")
            return
        self.messages.append(f"{'+' if content is None else '~'} {_display_path(path)}")
        if self.dry_run:
            return
        folders = _create_folders(path.parent)
        record = self._records.get(str(path))
        if record is None:
            record = FileRecord(content, "", _file_mode(path), folders)
        elif content is not None and _sha256(content) != record.written_hash:
            # The user has changed the file since: without the kit's part it is what an uninstall restores.
            record.original = remover(content)
        _replace_file(path, data, executable)
        record.written_hash = _sha256(data)
        self._records[str(path)] = record
        self.save()

    def delete(self, path: Path) -> None:
        """Delete a file and record its content, unless the kit itself created it."""
        self.messages.append(f"- {_display_path(path)}")
        if self.dry_run:
            return
        record = self._records.setdefault(str(path), FileRecord(_read_or_none(path), "", _file_mode(path), []))
        path.unlink()
        record.written_hash = _DELETED
        self.save()

    def move_aside(self, path: Path, new_path: Path) -> None:
        """Rename a file of the user, and record it so that an uninstall renames it back."""
        self.messages.append(f"~ {_display_path(path)} -> {new_path.name}")
        if self.dry_run:
            return
        os.rename(path, new_path)
        self._moved_files[str(path)] = str(new_path)
        self.save()

    def undo(self, get_remover: Callable[[Path], Remover]) -> None:
        """Revert all changes; a file that cannot be restored is reported, and the others are restored.

        Args:
            get_remover: returns the function that removes the kit's part from a file.
        """
        for name, record in reversed(list(self._records.items())):
            path = Path(name)
            try:
                self._restore(path, record, get_remover(path))
            except OSError as error:
                self.messages.append(f"! {_display_path(path)}: {error}")
        for name, new_name in self._moved_files.items():
            path, new_path = Path(name), Path(new_name)
            if (new_path.exists() or new_path.is_symlink()) and not path.exists():
                self.messages.append(f"~ {new_path.name} -> {_display_path(path)}")
                if not self.dry_run:
                    os.rename(new_path, path)
        if not self.dry_run:
            self._record_path.unlink(missing_ok=True)

    def save(self) -> None:
        """Write the record file."""
        if self.dry_run:
            return
        self._record_path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "files": {
                name: {
                    "before": None if record.original is None else base64.b64encode(record.original).decode(),
                    "after": record.written_hash,
                    "mode": record.original_mode,
                    "folders": record.created_folders,
                }
                for name, record in self._records.items()
            },
            "moves": self._moved_files,
        }
        _replace_file(self._record_path, json.dumps(document, indent=1).encode(), False, private=True)

    def _load(self, document: Any) -> None:
        for name, entry in document["files"].items():
            original = None if entry["before"] is None else base64.b64decode(entry["before"])
            self._records[name] = FileRecord(original, entry["after"], entry["mode"], list(entry["folders"]))
        self._moved_files = dict(document["moves"])

    def _restore(self, path: Path, record: FileRecord, remover: Remover) -> None:
        content = _read_or_none(path)
        if content is None and record.written_hash == _DELETED and record.original is not None:
            self.messages.append(f"+ {_display_path(path)}")
            if not self.dry_run:
                _create_folders(path.parent)
                self._write_original(path, record, record.original)
            return
        if content is None:
            if not self.dry_run:
                _remove_empty_folders(record.created_folders)
            return
        is_unchanged = _sha256(content) == record.written_hash
        rest = record.original if is_unchanged else remover(content)
        # Delete a file that the kit created if only brackets and whitespace are left of it.
        is_obsolete = rest is None or (record.original is None and not rest.strip(b"{}[] \t\r\n"))
        self.messages.append(
            f"{'-' if is_obsolete else '~'} {_display_path(path)}"
            f"{'' if is_unchanged else ' (changed since: removed only the part of the kit)'}"
        )
        if self.dry_run:
            return
        if is_obsolete:
            path.unlink()
            _remove_empty_folders(record.created_folders)
        else:
            assert rest is not None
            self._write_original(path, record, rest)

    def _write_original(self, path: Path, record: FileRecord, content: bytes) -> None:
        _replace_file(path, content, False)
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
    """Create a folder and its parents. Returns the created ones, outermost first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for missing_folder in reversed(missing):
        missing_folder.mkdir()
    return [str(missing_folder) for missing_folder in reversed(missing)]


def _remove_empty_folders(folders: list[str]) -> None:
    """Remove folders from the innermost outwards, until one is not empty."""
    for folder in reversed(folders):
        try:
            os.rmdir(folder)
        except OSError:
            break


def _replace_file(path: Path, data: bytes, executable: bool, *, private: bool = False) -> None:
    """Write a file atomically, so that readers see the old or the new content; a symbolic link stays one."""
    target = Path(os.path.realpath(path))
    old_mode = _file_mode(target)
    handle, temporary_name = tempfile.mkstemp(prefix=".llm-bus-", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as temporary_file:
            temporary_file.write(data)
        if os.name == "posix":
            mode = 0o600 if private else old_mode if old_mode is not None else 0o666 & ~_umask()
            os.chmod(temporary_name, mode | (0o111 & ~_umask() if executable else 0))
        os.replace(temporary_name, target)
    except BaseException:
        Path(temporary_name).unlink(missing_ok=True)
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
