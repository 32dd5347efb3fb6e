"""The installer's changes of files that belong to other people, and the record that reverts them.

The record is a file inside .git with the original content of each file. A file that is unchanged since the
installation gets that content back; from a file that was changed since, only the kit's part is removed. What cannot be
changed safely is left as it is and named, and everything else is installed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Union

from kit.file_system import (
    create_folders,
    file_mode,
    is_executable,
    refuse_protected,
    remove_empty_folders,
    replace_file,
)
from kit.plain_text import one_line
from kit.repo import Repo

# Maps the content of a file to the content without the kit's part; None if nothing else is left. The second argument is
# the content before the installation: empty if there was no file, None if there is no record of it.
Remover = Callable[[bytes, Union[bytes, None]], Union[bytes, None]]
_DELETED = ""


class EditRefusedError(ValueError):
    """A file that the installer must not change; the message says why."""


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


class Place(contextlib.AbstractContextManager["Place"]):
    """A context in which one place is changed: an error leaves it as it is."""

    def __init__(self, edits: FileEdits, path: Path) -> None:
        self._edits = edits
        self._path = path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Report an error of the file or of its content; other errors are faults of the kit."""
        if not isinstance(error, (OSError, ValueError, RecursionError)):
            return False
        self._edits.leave(self._path, error)
        return True


class FileEdits:
    """The changes of one work tree.

    Attributes:
        messages: one line for each change, for the user.
        left: the places that were left as they are, although the kit has or needs an entry there.
    """

    def __init__(self, repo: Repo, *, dry_run: bool) -> None:
        self.dry_run = dry_run
        self.messages: list[str] = []
        self.left: list[str] = []
        self._named_top = Path(os.path.abspath(repo.top))
        self._top = Path(os.path.realpath(repo.top))
        self._git_dirs = tuple(dict.fromkeys(Path(os.path.realpath(path)) for path in (repo.git_dir, repo.common_dir)))
        self._record_path = repo.git_dir / "llm-bus" / "installed.json"
        self._records: dict[str, FileRecord] = {}
        self._moved_files: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            self._load(json.loads(self._record_path.read_text("utf-8")))

    def place(self, path: Path) -> Place:
        """Return a context that reports an error of one place, so that the others are still changed."""
        return Place(self, path)

    def leave(self, path: Path, reason: object) -> None:
        """Report a place that is left as it is."""
        if isinstance(reason, OSError) and reason.strerror:
            reason = reason.strerror
        message = f"! {_display_path(path)}: {reason}; left as it is"
        # A file with several entries of the kit is one place.
        if message not in self.messages:
            self.left.append(str(path))
            self.messages.append(message)

    def is_ours(self, path: Path) -> bool:
        """Whether the kit changed this file before."""
        return os.path.realpath(path) in self._records

    def recorded_paths(self) -> frozenset[str]:
        """Return the files of which there is a record."""
        return frozenset(self._records)

    def original_of(self, path: Path) -> bytes | None:
        """Return the content of a file before the kit changed it; None if the kit created it, or did not change it."""
        record = self._records.get(os.path.realpath(path))
        return None if record is None else record.original

    def read(self, path: Path) -> bytes | None:
        """Read a file; None if there is none.

        Raises:
            EditRefusedError: the path leaves the repository through a link, or it is not a file.
            OSError: it cannot be read.
        """
        target = self._resolve(path)
        try:
            mode = target.stat().st_mode
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(mode):
            raise EditRefusedError("a folder is there" if stat.S_ISDIR(mode) else "this is not a regular file")
        return target.read_bytes()

    def write(self, path: Path, data: bytes, remover: Remover, *, executable: bool = False) -> None:
        """Write a file and record its original content; does nothing if the content is the same.

        Raises:
            EditRefusedError: the path leaves the repository through a link, or the file is protected.
            OSError: it cannot be written.
        """
        target = self._resolve(path)
        content = self.read(path)
        if content == data and (not executable or is_executable(target)):
            self.messages.append(f"= {self._display(path, target)}")
            return
        refuse_protected(target)
        if self.dry_run:
            self.messages.append(f"{'+' if content is None else '~'} {self._display(path, target)}")
            return
        record = self._records.get(str(target))
        if record is None:
            original = None if content is None else _without_part(content, remover)
            record = FileRecord(original, "", file_mode(target), [])
        elif content is not None and _sha256(content) != record.written_hash:
            # The user has changed the file since: without the kit's part it is what an uninstall restores.
            rest = remover(content, record.original or b"")
            was_created = record.original is None and (rest is None or _is_empty(rest))
            record.original = None if was_created else rest
        folders = create_folders(target.parent)
        record.created_folders = folders or record.created_folders
        try:
            replace_file(target, data, executable)
        except BaseException:
            remove_empty_folders(folders)
            raise
        record.written_hash = _sha256(data)
        self._records[str(target)] = record
        self.save()
        self.messages.append(f"{'+' if content is None else '~'} {self._display(path, target)}")

    def delete(self, path: Path) -> None:
        """Delete a file and record its content, unless the kit itself created it."""
        target = self._resolve(path)
        self.messages.append(f"- {_display_path(path)}")
        if self.dry_run:
            return
        record = self._records.setdefault(str(target), FileRecord(self.read(path), "", file_mode(target), []))
        target.unlink()
        record.written_hash = _DELETED
        self.save()

    def remove_part(self, path: Path, remover: Remover, mark: bytes = b"llm-bus") -> None:
        """Remove the kit's part from a file of which there is no record, as in another clone or worktree.

        Args:
            mark: what the kit's part contains.
        """
        try:
            content = self.read(path)
        except (EditRefusedError, OSError):
            # Where the kit does not write, there is nothing of it.
            return
        if content is None or mark not in content:
            return
        rest = remover(content, None)
        if rest == content:
            return
        target = self._resolve(path)
        refuse_protected(target)
        is_obsolete = rest is None or _is_empty(rest)
        if not self.dry_run:
            if is_obsolete:
                target.unlink()
                if target.parent not in (self._top, *self._git_dirs) and not _is_in(target, self._git_dirs):
                    # git keeps no empty folder either.
                    folders = [str(parent) for parent in target.parents if self._top in parent.parents]
                    remove_empty_folders(list(reversed(folders)))
            else:
                assert rest is not None
                replace_file(target, rest, False)
        self.messages.append(f"{'-' if is_obsolete else '~'} {self._display(path, target)} (no record: by its marks)")

    def move_aside(self, path: Path, new_path: Path) -> None:
        """Rename a file of the user, and record it so that an uninstall renames it back."""
        self.messages.append(f"~ {_display_path(path)} -> {_display_path(new_path)}")
        if self.dry_run:
            return
        new_path.parent.mkdir(exist_ok=True)
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
            with self.place(path):
                self._restore(path, record, get_remover(path))
                if not self.dry_run:
                    # A place that is left keeps its record, for the next attempt.
                    del self._records[name]
        for name, new_name in self._moved_files.items():
            path, new_path = Path(name), Path(new_name)
            if os.path.lexists(new_path) and not os.path.lexists(path):
                with self.place(path):
                    if not self.dry_run:
                        os.rename(new_path, path)
                    self.messages.append(f"~ {_display_path(new_path)} -> {_display_path(path)}")
        if self._records:
            self.save()
        elif not self.dry_run:
            self._record_path.unlink(missing_ok=True)

    def save(self) -> None:
        """Write the record file."""
        if self.dry_run:
            return
        self._record_path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "top": str(self._top),
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
        replace_file(self._record_path, json.dumps(document, indent=1).encode(), False, private=True)

    def _load(self, document: Any) -> None:
        old_top = document.get("top") or str(self._top)
        for name, entry in document["files"].items():
            path = self._relocate(name, old_top)
            if path is not None:
                original = None if entry["before"] is None else base64.b64decode(entry["before"])
                folders = [folder for folder in (self._relocate(name, old_top) for name in entry["folders"]) if folder]
                self._records[path] = FileRecord(original, entry["after"], entry["mode"], folders)
        for name, new_name in document["moves"].items():
            path, new_path = self._relocate(name, old_top), self._relocate(new_name, old_top)
            if path is not None and new_path is not None:
                self._moved_files[path] = new_path

    def _relocate(self, name: str, old_top: str) -> str | None:
        """Return the path of a record in this work tree, which may be a copy of the one that was recorded.

        None for a path of another work tree: it is not this one's to change.
        """
        path = Path(name)
        if old_top != str(self._top) and Path(old_top) in path.parents:
            path = self._top / path.relative_to(old_top)
        is_here = any(root in path.parents or root == path for root in (self._top, *self._git_dirs))
        return str(path) if is_here or (Path.home() in path.parents and old_top == str(self._top)) else None

    def _resolve(self, path: Path) -> Path:
        """Return the file behind the links of a path.

        Raises:
            EditRefusedError: a link leads out of the work tree, or from the work tree into .git.
        """
        target = Path(os.path.realpath(path))
        if os.path.islink(target):
            raise EditRefusedError("this is a loop of links")
        named = Path(os.path.abspath(path))
        is_named_in_git = _is_in(named, (self._named_top / ".git", *self._git_dirs))
        if not is_named_in_git and not _is_in(named, (self._named_top, self._top)):
            # A file in the user's home folder.
            if _is_in(named, (Path.home(),)) and _is_in(target, (Path(os.path.realpath(Path.home())),)):
                return target
        elif _is_in(target, self._git_dirs):
            if is_named_in_git:
                return target
            raise EditRefusedError(f"this is a link into .git ({target})")
        elif _is_in(target, (self._top,)):
            return target
        raise EditRefusedError(f"this is a link that leaves the repository ({target})")

    def _display(self, path: Path, target: Path) -> str:
        is_link = os.path.realpath(path.parent) != str(target.parent) or path.name != target.name
        return f"{_display_path(path)} -> {_display_path(target)}" if is_link else _display_path(path)

    def _restore(self, path: Path, record: FileRecord, remover: Remover) -> None:
        content = self.read(path)
        if content is None and record.written_hash == _DELETED and record.original is not None:
            if not self.dry_run:
                create_folders(path.parent)
                self._write_original(path, record, record.original)
            self.messages.append(f"+ {_display_path(path)}")
            return
        if content is None:
            if not self.dry_run:
                remove_empty_folders(record.created_folders)
            return
        is_unchanged = _sha256(content) == record.written_hash
        rest = record.original if is_unchanged else remover(content, record.original or b"")
        # Delete a file that the kit created if only brackets and whitespace are left of it.
        is_obsolete = rest is None or (record.original is None and _is_empty(rest))
        if not is_obsolete and rest == content:
            if record.original is None:
                self.messages.append(f"= {_display_path(path)} (changed since: left to you)")
            return
        refuse_protected(self._resolve(path))
        if not self.dry_run:
            if is_obsolete:
                path.unlink()
                remove_empty_folders(record.created_folders)
            else:
                assert rest is not None
                self._write_original(path, record, rest)
        self.messages.append(
            f"{'-' if is_obsolete else '~'} {_display_path(path)}"
            f"{'' if is_unchanged else ' (changed since: removed only the part of the kit)'}"
        )

    def _write_original(self, path: Path, record: FileRecord, content: bytes) -> None:
        current_mode = file_mode(path)
        replace_file(path, content, False)
        if record.original_mode is None or os.name != "posix":
            return
        # The kit changes the executable bits only; other changes of the mode are the user's.
        if current_mode is None or current_mode & ~0o111 == record.original_mode & ~0o111:
            path.chmod(record.original_mode)


def _is_in(path: Path, folders: tuple[Path, ...]) -> bool:
    return any(folder == path or folder in path.parents for folder in folders)


def _is_empty(content: bytes) -> bool:
    """Whether a file has only a byte order mark, brackets and whitespace."""
    return not content.lstrip(b"\xef\xbb\xbf").strip(b"{}[] \t\r\n")


def _without_part(content: bytes, remover: Remover) -> bytes | None:
    """Return a file without what an installation in another clone or worktree wrote into it; None if it wrote all."""
    rest = remover(content, None)
    return None if rest is None or (rest != content and _is_empty(rest)) else rest


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _display_path(path: Path) -> str:
    try:
        return one_line(os.path.relpath(path))
    except ValueError:
        return one_line(path)
