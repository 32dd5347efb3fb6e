"""The lease guard: the files of a commit, or of an edit, that other participants have leased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kit import globs
from kit.check_result import CheckResult
from kit.config import Config
from kit.plain_text import one_line

if TYPE_CHECKING:
    # Slow to import, and the notice before an edit mostly needs no call.
    from kit import mcp_client
    from kit.git_history import StagedChange

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
    warned: list[str] = []
    blocked: list[str] = []
    for path in dict.fromkeys(path for change in changes for path in (change.path, change.old_path) if path):
        policy = config.lease_policy(path)
        others = list_others(identity, leases, path) if policy != "off" else []
        if others:
            holder, surface = one_line(others[0]["actor"]), one_line(others[0]["surface"])
            line = f"{one_line(path)} is leased by {holder} ({surface}, {minutes_left(others[0])} min left)"
            (blocked if policy == "strict" else warned).append(line)
    if warned:
        result.notes.append(_format_list(warned, "Coordinate with the lease holders before you push: post on the bus."))
    if blocked:
        advice = "This repository blocks commits to these files: wait until they are released, or coordinate by post."
        result.blocking.append(_format_list(blocked, advice))


def list_others(identity: tuple[str, bool], leases: Sequence[dict[str, Any]], path: str) -> list[dict[str, Any]]:
    """List the leases of other participants that cover a path, without those that the caller shares."""
    actor, ignore_case = identity
    covering = [lease for lease in leases if globs.covers(str(lease["surface"]), path, ignore_case)]
    shares = any(lease["actor"] == actor and lease.get("mode") == "shared" for lease in covering)
    return [lease for lease in covering if lease["actor"] != actor and not (shares and lease.get("mode") == "shared")]


def minutes_left(lease: dict[str, Any]) -> int:
    """Return how long a lease runs, rounded up."""
    return int(lease.get("expires_in_seconds", 0)) // 60 + 1


def _format_list(lines: list[str], advice: str) -> str:
    more = [f"and {len(lines) - _MAX_LISTED_FILES} more"] if len(lines) > _MAX_LISTED_FILES else []
    return "\n".join([*lines[:_MAX_LISTED_FILES], *more, advice])
