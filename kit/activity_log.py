"""Messages on standard error, and the log and the state of the hooks inside .git, without tokens and bodies."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from kit.plain_text import one_line
from kit.repo import Repo

_MAX_BYTES = 256 * 1024


def print_message(message: str) -> None:
    """Print a message on standard error, each line with the prefix `llm-bus:`."""
    for line in message.split("\n"):
        try:
            print(f"llm-bus: {one_line(line)}", file=sys.stderr)
        except (OSError, UnicodeError, ValueError):
            # A terminal that cannot show a file name must not stop a commit.
            print(f"llm-bus: {line.encode('ascii', 'replace').decode()}", file=sys.stderr)


def log_path(repo: Repo) -> Path:
    """Return the log of a work tree, which no branch can replace by a link."""
    return repo.git_dir / "llm-bus" / "journal.jsonl"


def record(repo: Repo, action: str, **details: Any) -> None:
    """Append a line to the activity log of a work tree; disk errors are ignored."""
    entry = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "what": action, **details}
    try:
        path = log_path(repo)
        path.parent.mkdir(exist_ok=True)
        if path.exists() and path.stat().st_size > _MAX_BYTES:
            os.replace(path, path.with_name("journal.jsonl.1"))
        with path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n") as log_file:
            log_file.write(json.dumps(entry, ensure_ascii=False, sort_keys=True) + "\n")
    except OSError:
        pass


def ensure_state_folder(repo: Repo) -> Path:
    """Create the folder for the state of the hooks of a work tree.

    Raises:
        OSError: the folder cannot be created.
    """
    folder = repo.git_dir / "llm-bus" / "state"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
