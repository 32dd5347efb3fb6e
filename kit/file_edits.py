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
class Entry:
    """A file that we changed: what it was (None: not there), and the hash of what we left."""

    before: bytes | None
    after: str
    mode: int | None
    folders: list[str]


class Edits:
    """The changes of one work tree, read from and written to `ledger`."""

    def __init__(self, ledger: Path, *, dry_run: bool) -> None:
        self.dry_run = dry_run
        self.said: list[str] = []
        self._ledger = ledger
        self._entries: dict[str, Entry] = {}
        self._moves: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            self._load(json.loads(ledger.read_text("utf-8")))

    def ours(self, path: Path) -> bool:
        """Whether we changed this file before."""
        return str(path) in self._entries

    def write(self, path: Path, data: bytes, remover: Remover, *, executable: bool = False) -> None:
        """Let a file hold `data`; says what that changed."""
        held = _read(path)
        if held == data:
            self.said.append(f"= {_short(path)}")
            return
        self.said.append(f"{'+' if held is None else '~'} {_short(path)}")
        if self.dry_run:
            return
        folders = _make_folders(path.parent)
        entry = self._entries.get(str(path))
        if entry is None:
            entry = Entry(held, "", _mode(path), folders)
        elif held is not None and _hash(held) != entry.after:
            # Changed by somebody since: what is to come back is theirs, without what was ours in it.
            entry.before = remover(held)
        _replace(path, data, executable)
        entry.after = _hash(data)
        self._entries[str(path)] = entry
        self.save()

    def move(self, path: Path, to: Path) -> None:
        """Put a file of the user's aside, and remember to bring it back."""
        self.said.append(f"~ {_short(path)} -> {to.name}")
        if self.dry_run:
            return
        os.rename(path, to)
        self._moves[str(path)] = str(to)
        self.save()

    def forget(self, path: Path) -> None:
        """Say of a file that it is not ours any more."""
        self._entries.pop(str(path), None)

    def undo(self, removers: Callable[[Path], Remover]) -> None:
        """Take everything back; what cannot be is named, and the rest goes on."""
        for name, entry in reversed(list(self._entries.items())):
            path = Path(name)
            try:
                self._restore(path, entry, removers(path))
            except OSError as error:
                self.said.append(f"! {_short(path)}: {error}")
        for name, moved in self._moves.items():
            path, aside = Path(name), Path(moved)
            if (aside.exists() or aside.is_symlink()) and not path.exists():
                self.said.append(f"~ {aside.name} -> {_short(path)}")
                if not self.dry_run:
                    os.rename(aside, path)
        if not self.dry_run:
            self._ledger.unlink(missing_ok=True)

    def save(self) -> None:
        """Write the list of changes."""
        if self.dry_run:
            return
        self._ledger.parent.mkdir(parents=True, exist_ok=True)
        found = {
            "files": {
                name: {
                    "before": None if entry.before is None else base64.b64encode(entry.before).decode(),
                    "after": entry.after,
                    "mode": entry.mode,
                    "folders": entry.folders,
                }
                for name, entry in self._entries.items()
            },
            "moves": self._moves,
        }
        _replace(self._ledger, json.dumps(found, indent=1).encode(), False, private=True)

    def _load(self, found: Any) -> None:
        for name, entry in found["files"].items():
            before = None if entry["before"] is None else base64.b64decode(entry["before"])
            self._entries[name] = Entry(before, entry["after"], entry["mode"], list(entry["folders"]))
        self._moves = dict(found["moves"])

    def _restore(self, path: Path, entry: Entry, remover: Remover) -> None:
        held = _read(path)
        if held is None:
            return
        untouched = _hash(held) == entry.after
        left = entry.before if untouched else remover(held)
        # A file that was not there, and of which nothing is left but brackets or blanks, goes.
        gone = left is None or (entry.before is None and not left.strip(b"{}[] \t\r\n"))
        self.said.append(
            f"{'-' if gone else '~'} {_short(path)}{'' if untouched else ' (changed since: only our part)'}"
        )
        if self.dry_run:
            return
        if gone:
            path.unlink()
            for folder in reversed(entry.folders):
                try:
                    os.rmdir(folder)
                except OSError:
                    break
        else:
            assert left is not None
            _replace(path, left, False)
            if entry.mode is not None and os.name == "posix":
                path.chmod(entry.mode)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None


def _make_folders(folder: Path) -> list[str]:
    """Make a folder; returns those that were not there, outermost first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir()
    return [str(each) for each in reversed(missing)]


def _replace(path: Path, data: bytes, executable: bool, *, private: bool = False) -> None:
    """Write a file in one step: a reader sees the old or the new, and a link stays a link."""
    target = Path(os.path.realpath(path))
    mode = _mode(target)
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


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _short(path: Path) -> str:
    try:
        return os.path.relpath(path)
    except ValueError:
        return str(path)
