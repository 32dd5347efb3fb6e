"""The key of a client's session on the bus: the same in its hooks and on its MCP connection.

A connection of Claude Code starts before the hooks know their session, and outlives it, so there the key stands for the
process of the client. The other clients send the identifier of their session with each call, by themselves (Codex) or
because a hook adds it.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

from kit import quick

_SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "fish", "busybox")
_MAX_ANCESTORS = 4
_PS_TIMEOUT_SECONDS = 1.0


def find_key(client: str, hook_input: dict[str, Any]) -> str | None:
    """Return the key of the session, or of the subagent, that runs a hook; None if its MCP connection has none."""
    session_id, agent_id = hook_input.get("session_id"), hook_input.get("agent_id")
    key: str | None = None
    if client == "claude":
        pid = os.environ.get("CLAUDE_PID", "")
        key = _make_process_key(int(pid)) if pid.isdigit() else find_process_key()
    elif client in ("codex", "gemini", "opencode") and isinstance(session_id, str) and quick.is_plain(session_id):
        key = session_id
    if key is None or not isinstance(agent_id, str) or not agent_id:
        return key
    return f"{key}/{agent_id}" if quick.is_plain(agent_id) else key


def find_process_key() -> str | None:
    """Return the key of the process that started this one, without the shells in between; None if it is not known."""
    pid = os.getppid()
    for _ in range(_MAX_ANCESTORS):
        process = _describe(pid)
        if process is None:
            return None
        parent, started_at, name = process
        if name.lstrip("-") not in _SHELLS:
            return _format_key(pid, started_at)
        pid = parent
    return None


def _make_process_key(pid: int) -> str | None:
    process = _describe(pid)
    return None if process is None else _format_key(pid, process[1])


def _format_key(pid: int, started_at: str) -> str:
    text = f"{os.uname().nodename} {pid} {started_at}"
    return "claude-" + hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _describe(pid: int) -> tuple[int, str, str] | None:
    """Return the parent of a process, the time of its start, and the name of its program; None if it is not known."""
    if os.name != "posix":
        return None
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="surrogateescape") as file:
            head, _, tail = file.read().rpartition(")")
        fields = tail.split()
        return int(fields[1]), fields[19], head.partition("(")[2]
    except (OSError, ValueError, IndexError):
        pass
    import subprocess

    command = ["ps", "-o", "ppid=,lstart=,comm=", "-p", str(pid)]
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_PS_TIMEOUT_SECONDS, check=True
        )
        parent, *started_at = done.stdout.split(None, 6)
        return int(parent), " ".join(started_at[:5]), os.path.basename(started_at[5].strip())
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None
