"""What the hook did, for whoever wonders later: `.llm-bus/journal.jsonl`. Never a token, never a body."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

FOLDER_NAME = ".llm-bus"
GITIGNORE_TEXT = "# Written by the LLM Bus kit: what stays on this machine.\n/journal.jsonl*\n/state/\n__pycache__/\n"
_MAX_BYTES = 256 * 1024


def print_message(message: str) -> None:
    """Tell whoever runs the hook, on standard error."""
    for line in message.splitlines():
        try:
            print(f"llm-bus: {line}", file=sys.stderr)
        except (OSError, UnicodeError, ValueError):
            # A terminal that cannot show a name of a file is no reason to stop a commit.
            print(f"llm-bus: {line.encode('ascii', 'replace').decode()}", file=sys.stderr)


def record(top: Path, action: str, **facts: Any) -> None:
    """Append a line to the journal; a disk that refuses it is passed over."""
    line = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "what": action, **facts}
    try:
        folder = ensure_folder(top)
        path = folder / "journal.jsonl"
        if path.exists() and path.stat().st_size > _MAX_BYTES:
            os.replace(path, folder / "journal.jsonl.1")
        with path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n") as out:
            out.write(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n")
    except OSError:
        pass


def ensure_folder(top: Path) -> Path:
    """The folder of the kit in a work tree, with what keeps its local files out of git."""
    folder = top / FOLDER_NAME
    folder.mkdir(exist_ok=True)
    keep_out = folder / ".gitignore"
    if not keep_out.exists():
        keep_out.write_bytes(GITIGNORE_TEXT.encode())
    return folder


def ensure_state_folder(top: Path) -> Path:
    """Where what the hook must remember lies.

    Raises:
        OSError: it cannot be made.
    """
    folder = ensure_folder(top) / "state"
    folder.mkdir(exist_ok=True)
    return folder
