"""The lease guard: the files of a commit that other participants have leased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kit import globs, mcp_client
from kit.check_result import CheckResult
from kit.config import Config
from kit.git_history import StagedChange
from kit.plain_text import one_line

_MAX_LISTED_FILES = 10
_MAX_LEASE_PAGES = 5


def fetch_identity(bus: mcp_client.BusClient) -> tuple[str, bool]:
    """Fetch the caller's qualified name, and whether the paths of its project ignore case."""
    identity = bus.call("whoami")
    return str(identity["actor"]), bool(identity.get("case_insensitive_paths"))


def fetch_leases(bus: mcp_client.BusClient) -> list[dict[str, Any]]:
    """Fetch the active leases of the project."""
    leases: list[dict[str, Any]] = []
    before: Any = None
    for _ in range(_MAX_LEASE_PAGES):
        page = bus.call("who_holds", **({} if before is None else {"before": before}))
        leases += page["leases"]
        before = page.get("next_before")
        if before is None:
            break
    return leases


def check_leases(
    config: Config,
    identity: tuple[str, bool],
    leases: Sequence[dict[str, Any]],
    changes: Sequence[StagedChange],
    result: CheckResult,
) -> None:
    """List the changed files that other participants have leased; those under the policy "strict" block."""
    actor, ignore_case = identity
    own_shared = [
        str(lease["surface"]) for lease in leases if lease["actor"] == actor and lease.get("mode") == "shared"
    ]
    others = [lease for lease in leases if lease["actor"] != actor]
    warned: list[str] = []
    blocked: list[str] = []
    for path in dict.fromkeys(path for change in changes for path in (change.path, change.old_path) if path):
        policy = config.lease_policy(path)
        for lease in others if policy != "off" else ():
            if not globs.covers(str(lease["surface"]), path, ignore_case):
                continue
            if lease.get("mode") == "shared" and any(
                globs.covers(surface, path, ignore_case) for surface in own_shared
            ):
                continue
            minutes = int(lease.get("expires_in_seconds", 0)) // 60 + 1
            holder, surface = one_line(lease["actor"]), one_line(lease["surface"])
            line = f"{one_line(path)} is leased by {holder} ({surface}, {minutes} min left)"
            (blocked if policy == "strict" else warned).append(line)
            break
    if warned:
        result.notes.append(_format_list(warned, "Coordinate with the lease holders before you push: post on the bus."))
    if blocked:
        advice = "This repository blocks commits to these files: wait until they are released, or coordinate by post."
        result.blocking.append(_format_list(blocked, advice))


def _format_list(lines: list[str], advice: str) -> str:
    more = [f"and {len(lines) - _MAX_LISTED_FILES} more"] if len(lines) > _MAX_LISTED_FILES else []
    return "\n".join([*lines[:_MAX_LISTED_FILES], *more, advice])
