"""The lease notice: which other participants have leased a file that a client is about to edit.

One short request for each file, whose answer serves several edits: it is kept for some seconds inside .git. A failure
is kept too, so that a bus that is away delays one edit and not each of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit import activity_log, globs, lease_guard
from kit.config import Config
from kit.plain_text import one_line
from kit.repo import Repo

if TYPE_CHECKING:
    from kit import mcp_client

# For all calls of one edit.
TIME_LIMIT_SECONDS = 0.3
_CACHE_SECONDS = 10
_IDENTITY_CACHE_SECONDS = 3600
_MAX_LINES = 3
# Of one edit, each with a request of its own.
_MAX_SESSION_PATHS = 4
_MAX_NAME_LENGTH = 200
_MAX_NOTE_LENGTH = 100
_CACHE_NAME = "leases.json"
# What a notice needs of a lease.
_LEASE_KEYS = ("surface", "actor", "session", "note", "mode", "fence", "expires_in_seconds")


def find_leased(
    work_tree: Repo, config: Config, paths: Sequence[str], session_key: str | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """Find the paths that others have leased, with the newest lease of each; empty after a failure.

    Args:
        session_key: the session that edits: leases of other sessions of the same participant count too. None for a
            client without sessions.
    """
    paths = [path for path in dict.fromkeys(paths) if config.lease_policy(path) != "off"]
    if not paths or config.token is None:
        return []
    cache = _Cache(work_tree, config, session_key)
    if session_key is not None:
        held = _find_held(work_tree, config, cache, paths[:_MAX_SESSION_PATHS], session_key)
        if held is not None:
            return held
    identity = cache.find_identity()
    answers = {path: cache.find_leases(path) for path in paths}
    missing = [path for path, answer in answers.items() if answer is None]
    if missing:
        answers.update(_fetch(work_tree, config, cache, missing, has_identity=identity is not None))
        identity = cache.find_identity()
    if identity is None:
        return []
    leased = []
    for path, leases in answers.items():
        others = lease_guard.list_others(identity, leases or [], path)
        if others:
            leased.append((path, others[0]))
    return leased


def _find_held(
    work_tree: Repo, config: Config, cache: _Cache, paths: Sequence[str], session_key: str
) -> list[tuple[str, dict[str, Any]]] | None:
    """Find the paths that others than a session hold; the bus decides whose leases these are.

    Returns:
        None if the bus cannot say it: it is of an earlier version, or the name of a file is no surface.
    """
    answers = {path: cache.find_leases(path) for path in paths}
    missing = [path for path, answer in answers.items() if answer is None]
    if missing:
        # Slow to import, and not needed while answers are kept.
        from kit import mcp_client

        calls: list[mcp_client.BusCall] = [
            lambda bus, path=path: bus.look(surface=path)["holders"]  # type: ignore[misc]
            for path in missing
        ]
        budget = mcp_client.TimeBudget(TIME_LIMIT_SECONDS)
        holders = mcp_client.call_in_parallel(
            config.endpoint, config.token, calls, budget, max_threads=_MAX_SESSION_PATHS, session_key=session_key
        )
        error = next((answer for answer in holders if isinstance(answer, Exception)), None)
        if getattr(error, "status", None) in (mcp_client.NOT_FOUND, mcp_client.BAD_REQUEST):
            return None
        if error is not None:
            activity_log.record(work_tree, "proceeded", reason=f"leases not checked: {error}")
        fetched = {
            path: [_pick(lease) for lease in answer] if isinstance(answer, list) else []
            for path, answer in zip(missing, holders)
        }
        cache.keep(fetched, None)
        answers.update(fetched)
    return [(path, leases[0]) for path, leases in answers.items() if leases]


def format_notice(leased: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Format one line for each leased file."""
    lines = []
    for path, lease in leased[:_MAX_LINES]:
        note = f", note {json.dumps(one_line(lease['note'], _MAX_NOTE_LENGTH), ensure_ascii=False)}"
        session = f", another session of yours ({one_line(lease['session'], 40)})" if lease.get("session") else ""
        until = time.strftime("%H:%M", time.localtime(time.time() + float(lease["expires_in_seconds"])))
        lines.append(
            f"LLM Bus: {one_line(path, _MAX_NAME_LENGTH)} is leased by {one_line(lease['actor'], _MAX_NAME_LENGTH)}"
            f"{session} until {until} (surface {one_line(lease['surface'], _MAX_NAME_LENGTH)}"
            f"{note if lease.get('note') else ''}); agree on the edit by post."
        )
    if len(leased) > _MAX_LINES:
        lines.append(f"LLM Bus: {len(leased) - _MAX_LINES} more of these files are leased; who_holds lists them.")
    return "\n".join(lines)


def take_unannounced(
    work_tree: Repo, session_hash: str, leased: Sequence[tuple[str, dict[str, Any]]]
) -> list[tuple[str, dict[str, Any]]]:
    """Return the leases that this session was not notified of, and mark them as announced: one line for each file."""
    unannounced = []
    for path, lease in leased:
        with contextlib.suppress(OSError):
            folder = activity_log.ensure_state_folder(work_tree)
            try:
                holder = [lease.get(name) for name in ("fence", "actor", "session", "surface")]
                (folder / f"leased-{session_hash}-{_hash(path, *holder)}").touch(exist_ok=False)
            except FileExistsError:
                continue
        unannounced.append((path, lease))
    return unannounced


def _fetch(
    work_tree: Repo, config: Config, cache: _Cache, paths: Sequence[str], *, has_identity: bool
) -> dict[str, list[dict[str, Any]]]:
    """Ask the bus for the leases of files, and keep the answer."""
    # Slow to import, and not needed while answers are kept.
    from kit import mcp_client

    def fetch_leases(bus: mcp_client.BusClient) -> Any:
        if len(paths) == 1:
            try:
                return bus.call("who_holds", surface=paths[0])["leases"]
            except mcp_client.RefusedError:
                # The name of the file is no surface: too long, or with characters that surfaces may not have.
                pass
        return bus.call("who_holds")["leases"]

    calls: list[mcp_client.BusCall] = [fetch_leases, *([] if has_identity else [lease_guard.fetch_identity])]
    budget = mcp_client.TimeBudget(TIME_LIMIT_SECONDS)
    leases, *identities = mcp_client.call_in_parallel(config.endpoint, config.token, calls, budget)
    error = next((answer for answer in (leases, *identities) if isinstance(answer, Exception)), None)
    if error is not None:
        activity_log.record(work_tree, "proceeded", reason=f"leases not checked: {error}")
    if isinstance(leases, Exception) or not isinstance(leases, list):
        leases = []
    # In any case of letters, since the answer whether that matters may be missing.
    covering = {
        path: [_pick(lease) for lease in leases if globs.covers(str(lease["surface"]), path, ignore_case=True)]
        for path in paths
    }
    cache.keep(covering, next((answer for answer in identities if not isinstance(answer, Exception)), None))
    return covering


def _pick(lease: dict[str, Any]) -> dict[str, Any]:
    return {key: lease.get(key) for key in _LEASE_KEYS}


class _Cache:
    """The answers of the bus to this participant: a file of the state folder, which holds no token."""

    def __init__(self, work_tree: Repo, config: Config, session_key: str | None) -> None:
        self._prefix = _hash(config.endpoint, config.token, *([session_key] if session_key else []))
        self._now = time.time()
        self._path: Path | None = None
        self._entries: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            self._path = activity_log.ensure_state_folder(work_tree) / _CACHE_NAME
            document = json.loads(self._path.read_text("utf-8"))
            self._entries = document if isinstance(document, dict) else {}

    def find_identity(self) -> tuple[str, bool] | None:
        identity = self._find(self._prefix, _IDENTITY_CACHE_SECONDS)
        return (str(identity[0]), bool(identity[1])) if isinstance(identity, list) and len(identity) == 2 else None

    def find_leases(self, path: str) -> list[dict[str, Any]] | None:
        """Return the kept leases of a path that still run; None if the bus has to be asked."""
        key = self._key(path)
        leases = self._find(key, _CACHE_SECONDS)
        if not isinstance(leases, list):
            return None
        age = self._now - self._entries[key]["at"]
        running = []
        for lease in leases:
            seconds = float(lease["expires_in_seconds"]) - age
            if seconds > 0:
                running.append({**lease, "expires_in_seconds": seconds})
        return running

    def keep(self, answers: dict[str, list[dict[str, Any]]], identity: tuple[str, bool] | None) -> None:
        """Keep an answer; concurrent hooks may lose one, which costs a request."""
        if identity is not None:
            self._entries[self._prefix] = {"at": self._now, "answer": list(identity)}
        for path, leases in answers.items():
            self._entries[self._key(path)] = {"at": self._now, "answer": leases}
        fresh = {
            key: entry
            for key, entry in self._entries.items()
            if self._is_fresh(entry, _CACHE_SECONDS if "-" in key else _IDENTITY_CACHE_SECONDS)
        }
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            temporary_path = self._path.with_suffix(f".{os.getpid()}")
            temporary_path.write_text(json.dumps(fresh), "utf-8")
            os.replace(temporary_path, self._path)

    def _key(self, path: str) -> str:
        return f"{self._prefix}-{_hash(path)}"

    def _find(self, key: str, seconds: float) -> Any:
        entry = self._entries.get(key)
        return entry.get("answer") if self._is_fresh(entry, seconds) and isinstance(entry, dict) else None

    def _is_fresh(self, entry: Any, seconds: float) -> bool:
        at = entry.get("at") if isinstance(entry, dict) else None
        return isinstance(at, (int, float)) and 0 <= self._now - at < seconds


def _hash(*values: Any) -> str:
    return hashlib.sha256("\0".join(map(str, values)).encode("utf-8", "surrogatepass")).hexdigest()[:16]
