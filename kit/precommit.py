"""The reconcile hook and the lease guard: checks of a commit, or of one file, against the bus.

Two cases block: another participant has claimed the number of a new governed file, and, only if the repository asks
for it, another participant has leased files that are "strict". After any failure the commit proceeds, with a message.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Union

from kit import VERSION, activity_log, globs, mcp_client, repo
from kit.config import Config, ConfigError, GovernedFile, load_config
from kit.plain_text import one_line
from kit.repo import NoRepositoryError, Repo, StagedChange

# For the whole process. The time for starting and ending the interpreter is subtracted, and the bus gets its minimum
# also if git was slow.
TIME_LIMIT_SECONDS = 1.5
_INTERPRETER_SECONDS = 0.3
_MIN_CALL_SECONDS = 0.5
_PROCESS_STARTED_AT = time.monotonic()
OVERRIDE_VARIABLE = "LLM_BUS_OVERRIDE"
# A commit with more new numbers is an import, and claims none.
_MAX_CLAIMS = 20
_MAX_LISTED_FILES = 10
_MAX_LEASE_PAGES = 5
_VERSION_CACHE_SECONDS = 86400
_VERSION_TIMEOUT_SECONDS = 0.4


@dataclass
class CheckResult:
    """The messages of a check, for the user; the commit is blocked if `blocking` has any."""

    blocking: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def print_messages(self) -> None:
        """Print all messages on standard error."""
        for message in [*self.notes, *self.blocking]:
            activity_log.print_message(message)


@dataclass(frozen=True)
class NumberClaim:
    """The claim of a number: its actor, and whether that is the caller."""

    is_mine: bool
    actor: str


# The claim of a number, None for an unclaimed number, or the error of the look-up.
ClaimLookup = Union[NumberClaim, None, Exception]


def check_staged(*, include_leases: bool) -> bool:
    """Check the staged files. Returns whether to block the commit."""
    try:
        work_tree = repo.get_repo()
    except NoRepositoryError as error:
        activity_log.print_message(f"{error}. Continuing without the bus.")
        return False
    try:
        config = load_config(work_tree)
        changes = repo.list_staged_changes(work_tree)
    except (ConfigError, NoRepositoryError) as error:
        _report_unchecked(work_tree, str(error))
        return False
    if not changes:
        return False
    governed = _find_new_numbers(config, changes)
    if not governed and not include_leases:
        return False
    return _check_changes(work_tree, config, governed, changes if include_leases else [], remaining_budget())


def check_file(path: Path) -> CheckResult | None:
    """Check one file that was just written. Returns None if the file needs no check or it failed."""
    try:
        work_tree = repo.get_repo(path.parent)
    except NoRepositoryError:
        return None
    try:
        config = load_config(work_tree)
        real_path = Path(os.path.realpath(path.parent), path.name)
        relative_path = real_path.relative_to(os.path.realpath(work_tree.top)).as_posix()
        governed = config.find_governed(relative_path)
        if governed is None or not repo.is_new(work_tree, relative_path):
            return None
    except ValueError:
        # The file is outside the work tree.
        return None
    except (ConfigError, NoRepositoryError) as error:
        _report_unchecked(work_tree, str(error))
        return None
    result = _reconcile(work_tree, config, [governed], remaining_budget())
    return _apply_override(work_tree, result)


def remaining_budget() -> mcp_client.TimeBudget:
    """Return the time that is left for calls of the bus."""
    return mcp_client.TimeBudget(
        max(_MIN_CALL_SECONDS, TIME_LIMIT_SECONDS - _INTERPRETER_SECONDS - (time.monotonic() - _PROCESS_STARTED_AT))
    )


def _check_changes(
    work_tree: Repo,
    config: Config,
    governed: list[GovernedFile],
    lease_changes: Sequence[StagedChange],
    budget: mcp_client.TimeBudget,
) -> bool:
    result = _apply_override(work_tree, _reconcile(work_tree, config, governed, budget, lease_changes))
    result.print_messages()
    _warn_if_outdated(work_tree, config, budget)
    if result.blocking:
        activity_log.record(work_tree, "blocked", messages=result.blocking)
        activity_log.print_message(f"The commit was blocked. Set {OVERRIDE_VARIABLE}=1 to commit anyway.")
    return bool(result.blocking)


def _apply_override(work_tree: Repo, result: CheckResult) -> CheckResult:
    if os.environ.get(OVERRIDE_VARIABLE) != "1" or not result.blocking:
        return result
    activity_log.record(work_tree, "overridden", messages=result.blocking)
    note = f"{OVERRIDE_VARIABLE}=1: continuing anyway; this is recorded in {activity_log.log_path(work_tree)}."
    return CheckResult([], [*result.notes, *result.blocking, note])


def _report_unchecked(work_tree: Repo, reason: str) -> None:
    activity_log.record(work_tree, "proceeded", reason=reason)
    activity_log.print_message(f"not checked: {reason}. Continuing without the bus.")


def _find_new_numbers(config: Config, changes: Sequence[StagedChange]) -> list[GovernedFile]:
    """Find the numbers of new files, except files that were renamed under the same number."""
    new_numbers = []
    for change in changes:
        governed = config.find_governed(change.path) if change.is_new else None
        old = config.find_governed(change.old_path) if governed and change.old_path else None
        if governed and (old is None or (old.sequence, old.number) != (governed.sequence, governed.number)):
            new_numbers.append(governed)
    return new_numbers


def _reconcile(
    work_tree: Repo,
    config: Config,
    governed_files: list[GovernedFile],
    budget: mcp_client.TimeBudget,
    lease_changes: Sequence[StagedChange] = (),
) -> CheckResult:
    if config.token is None:
        # A repository without a token is a valid choice, so this is one line.
        _report_unchecked(work_tree, config.token_problem)
        return CheckResult()
    by_number: dict[tuple[str, int], list[GovernedFile]] = {}
    for governed in governed_files:
        by_number.setdefault((governed.sequence, governed.number), []).append(governed)
    calls: list[mcp_client.BusCall] = [partial(_find_claim, sequence, number) for sequence, number in by_number]
    if lease_changes:
        calls.append(_fetch_leases)
    answers = mcp_client.call_in_parallel(config.endpoint, config.token, calls, budget)
    result = CheckResult()
    error = next((answer for answer in answers if isinstance(answer, Exception)), None)
    if lease_changes:
        actor_and_leases = answers.pop()
        if not isinstance(actor_and_leases, Exception):
            _check_leases(config, actor_and_leases, lease_changes, result)
    _check_numbers(work_tree, config, list(by_number.values()), answers, budget, result)
    if error is not None:
        _report_unchecked(
            work_tree, f"the bus at {one_line(config.endpoint)} could not be queried: {_describe_error(error)}"
        )
    return result


def _describe_error(error: Exception) -> str:
    return str(error) or type(error).__name__


def _find_claim(sequence: str, number: int, bus: mcp_client.BusClient) -> NumberClaim | None:
    """Find the claim of a number with one exact look-up, which also says whether the caller made it."""
    events = bus.call("query_events", type="claim", sequence=sequence, number=number, limit=1).get("events")
    if not isinstance(events, list):
        raise mcp_client.UnreachableError("the response has no events")
    if not events:
        return None
    event = events[0]
    try:
        if event["payload"]["number"] != number:
            raise mcp_client.UnreachableError("the bus cannot look up numbers; it is older than this kit")
        return NumberClaim(bool(event["mine"]), str(event["actor"]))
    except (KeyError, TypeError):
        raise mcp_client.UnreachableError("this kit does not know the format of the events") from None


def _check_numbers(
    work_tree: Repo,
    config: Config,
    groups: list[list[GovernedFile]],
    lookups: Sequence[ClaimLookup],
    budget: mcp_client.TimeBudget,
    result: CheckResult,
) -> None:
    """Check each number, and claim a number for each that the caller has not claimed.

    Args:
        groups: the files by number.
        lookups: the claim of the number of each group.
        result: receives the messages.
    """
    to_claim: list[tuple[list[GovernedFile], NumberClaim | None]] = []
    for group, lookup in zip(groups, lookups):
        if not isinstance(lookup, Exception) and not (lookup is not None and lookup.is_mine):
            to_claim.append((group, lookup))
    if len(to_claim) > _MAX_CLAIMS:
        new_claims: list[Any] = [None] * len(to_claim)
        free_count = sum(claim is None for _, claim in to_claim)
        if free_count:
            result.notes.append(
                f"{free_count} new numbers are unclaimed. If this is an import, call seed_sequence with the highest "
                "number in use."
            )
    else:
        calls = [partial(_claim_number, work_tree, group[0]) for group, _ in to_claim]
        new_claims = mcp_client.call_in_parallel(config.endpoint, config.token or "", calls, budget)
    for (group, claim), new_claim in zip(to_claim, new_claims):
        formatted = new_claim if isinstance(new_claim, str) else None
        if claim is not None:
            result.blocking.append(_format_taken(work_tree, group, claim, formatted))
        elif formatted is not None:
            result.notes.append(_format_claimed(work_tree, group, formatted))
            activity_log.record(
                work_tree, "claimed", sequence=group[0].sequence, formatted=formatted, path=group[0].path
            )
        elif isinstance(new_claim, Exception):
            number = f"{group[0].sequence} {group[0].number}"
            _report_unchecked(work_tree, f"{number} could not be claimed: {_describe_error(new_claim)}")


def _claim_number(work_tree: Repo, governed: GovernedFile, bus: mcp_client.BusClient) -> str:
    """Claim a number for a file; a second attempt of the same commit gets the same number."""
    key = hashlib.sha256(
        "\0".join((str(work_tree.top), governed.sequence, governed.path)).encode("utf-8", "surrogateescape")
    )
    note = governed.path.encode("utf-8", "replace").decode()[-500:]
    claim = bus.call("claim", sequence=governed.sequence, note=note, idempotency_key=f"kit-{key.hexdigest()[:40]}")
    formatted = claim.get("formatted")
    if not isinstance(formatted, str) or not re.search("[0-9]", formatted):
        raise mcp_client.UnreachableError("the response to claim has no number")
    return formatted


def _format_taken(work_tree: Repo, group: list[GovernedFile], claim: NumberClaim, formatted: str | None) -> str:
    first = group[0]
    lines = [f"{one_line(first.path)}: {first.sequence} {first.number} is claimed by {one_line(claim.actor)}."]
    if formatted is None:
        lines.append(f"Claim your own number (claim {first.sequence}) and rename the file.")
    else:
        lines.append(f"The next number, {formatted}, is claimed for you. Run:")
        lines += [f"  {_rename_command(work_tree, governed, formatted)}" for governed in group]
    return "\n".join(lines)


def _format_claimed(work_tree: Repo, group: list[GovernedFile], formatted: str) -> str:
    first = group[0]
    path = one_line(first.path)
    if all(governed.path_with_number(formatted) == governed.path for governed in group):
        return f"{path}: {first.sequence} {formatted} was free and is now claimed for you."
    lines = [
        f"{path}: {first.sequence} {first.number} is unclaimed. The next number, {formatted}, is claimed for you. Run:"
    ]
    lines += [f"  {_rename_command(work_tree, governed, formatted)}" for governed in group]
    return "\n".join(lines)


def _rename_command(work_tree: Repo, governed: GovernedFile, formatted: str) -> str:
    """Build the command that renames the file, relative to the user's current folder."""
    folder = os.environ.get("GIT_PREFIX") or os.path.relpath(os.getcwd(), work_tree.top)
    if folder.startswith(".."):
        folder = "."
    paths = (governed.path, governed.path_with_number(formatted))
    old, new = (_quote_for_shell(os.path.relpath(path, folder).replace(os.sep, "/")) for path in paths)
    move = f"git mv -- {old} {new}"
    try:
        repo.run_git("ls-files", "--error-unmatch", "--", f":(top,literal){governed.path}", cwd=work_tree.top)
    except NoRepositoryError:
        # git mv does not move untracked files.
        return f"git add -- {old} && {move}"
    return move


def _quote_for_shell(name: str) -> str:
    return f'"{name}"' if os.name == "nt" else shlex.quote(name)


def _fetch_leases(bus: mcp_client.BusClient) -> tuple[str, list[dict[str, Any]]]:
    """Fetch the caller's qualified name and the active leases of the project."""
    actor = str(bus.call("whoami")["actor"])
    leases: list[dict[str, Any]] = []
    before: Any = None
    for _ in range(_MAX_LEASE_PAGES):
        page = bus.call("who_holds", **({} if before is None else {"before": before}))
        leases += page["leases"]
        before = page.get("next_before")
        if before is None:
            break
    return actor, leases


def _check_leases(
    config: Config,
    actor_and_leases: tuple[str, list[dict[str, Any]]],
    changes: Sequence[StagedChange],
    result: CheckResult,
) -> None:
    """List the changed files that other participants have leased; those under the policy "strict" block."""
    actor, leases = actor_and_leases
    own_shared = [
        str(lease["surface"]) for lease in leases if lease["actor"] == actor and lease.get("mode") == "shared"
    ]
    others = [lease for lease in leases if lease["actor"] != actor]
    warned: list[str] = []
    blocked: list[str] = []
    for path in dict.fromkeys(path for change in changes for path in (change.path, change.old_path) if path):
        policy = config.lease_policy(path)
        for lease in others if policy != "off" else ():
            if not globs.covers(str(lease["surface"]), path):
                continue
            if lease.get("mode") == "shared" and any(globs.covers(surface, path) for surface in own_shared):
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


def _warn_if_outdated(work_tree: Repo, config: Config, budget: mcp_client.TimeBudget) -> None:
    minimum = find_minimum_version(work_tree, config, min(budget.remaining(), _VERSION_TIMEOUT_SECONDS))
    if minimum is not None and is_older(VERSION, minimum):
        activity_log.print_message(
            f"this kit is {VERSION}, but the bus requires {minimum} or newer: "
            f"curl -fsSL {config.web_url}/kit/install.py | python3 -"
        )


def find_minimum_version(work_tree: Repo, config: Config, seconds: float) -> str | None:
    """Find the oldest kit that the server supports; None if it is unknown. The answer is cached for a day."""
    if config.web_url is None:
        return None
    try:
        cache_path = activity_log.ensure_state_folder(work_tree) / "server.json"
        try:
            cached = json.loads(cache_path.read_text("utf-8"))
            if 0 <= time.time() - cached["at"] < _VERSION_CACHE_SECONDS and cached["home"] == config.web_url:
                return str(cached["minimum"]) if cached["minimum"] else None
        except (OSError, ValueError, KeyError, TypeError):
            pass
        if seconds <= 0:
            return None
        url = f"{config.web_url.rstrip('/')}/kit/version.json"
        budget = mcp_client.TimeBudget(seconds)
        (answer,) = mcp_client.call_in_parallel(url, None, [lambda bus: bus.get_json()], budget)
        minimum = answer.get("minimum") if isinstance(answer, dict) else None
        cache_path.write_text(json.dumps({"at": time.time(), "home": config.web_url, "minimum": minimum}), "utf-8")
    except OSError:
        return None
    return minimum if isinstance(minimum, str) else None


def is_older(version: str, minimum: str) -> bool:
    """Whether a version is older than another; invalid versions are never older."""
    try:
        return [int(part) for part in version.split(".")] < [int(part) for part in minimum.split(".")]
    except ValueError:
        return False
