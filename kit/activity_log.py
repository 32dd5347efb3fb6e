"""Messages on standard error, and the log of hook activity in `.llm-bus/journal.jsonl`, without tokens and bodies."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

FOLDER_NAME = ".llm-bus"
GITIGNORE_TEXT = "# Written by the LLM Bus kit: local files of this machine.\n/journal.jsonl*\n/state/\n__pycache__/\n"
_MAX_BYTES = 256 * 1024


def print_message(message: str) -> None:
    """Print a message on standard error, each line with the prefix `llm-bus:`."""
    for line in message.splitlines():
        try:
            print(f"llm-bus: {line}", file=sys.stderr)
        except (OSError, UnicodeError, ValueError):
            # A terminal that cannot show a file name must not stop a commit.
            print(f"llm-bus: {line.encode('ascii', 'replace').decode()}", file=sys.stderr)


def record(top: Path, action: str, **details: Any) -> None:
    """Append a line to the activity log of the work tree at `top`; disk errors are ignored."""
    entry = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "what": action, **details}
    try:
        folder = ensure_folder(top)
        path = folder / "journal.jsonl"
        if path.exists() and path.stat().st_size > _MAX_BYTES:
            os.replace(path, folder / "journal.jsonl.1")
        with path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n") as log_file:
            log_file.write(json.dumps(entry, ensure_ascii=False, sort_keys=True) + "\n")
    except OSError:
        pass


def ensure_folder(top: Path) -> Path:
    """Create the kit's folder in a work tree, with a .gitignore for its local files.

    Raises:
        OSError: the folder cannot be created.
    """
    folder = top / FOLDER_NAME
    folder.mkdir(exist_ok=True)
    gitignore = folder / ".gitignore"
    if not gitignore.exists():
        gitignore.write_bytes(GITIGNORE_TEXT.encode())
    return folder


def ensure_state_folder(top: Path) -> Path:
    """Create the folder for the state of the hooks.

    Raises:
        OSError: the folder cannot be created.
    """
    folder = ensure_folder(top) / "state"
    folder.mkdir(exist_ok=True)
    return folder
