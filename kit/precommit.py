"""The reconcile hook and the lease guard: what a commit, or a file just written, meets on the bus.

One case blocks: the number of a new governed file is claimed by somebody else; a second only where the repository
asks for it (a lease of somebody else on files that are "strict"). Whatever goes wrong proceeds, and says so.
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
from typing import Any

from kit import VERSION, activity_log, globs, mcp_client, repo
from kit.config import Config, ConfigError, GovernedFile, load_config
from kit.repo import NoRepositoryError, Repo, StagedChange

# For everything, from the start of the process. What an interpreter takes to start and to end is left out of it, and
# the bus gets its part also where git was slow.
TIME_LIMIT_SECONDS = 1.5
_INTERPRETER_SECONDS = 0.3
_MIN_CALL_SECONDS = 0.5
_PROCESS_STARTED_AT = time.monotonic()
OVERRIDE_VARIABLE = "LLM_BUS_OVERRIDE"
# A commit that brings more new numbers than this is an import, and burns none.
_MAX_CLAIMS = 20
_MAX_LISTED_FILES = 10
_MAX_LEASE_PAGES = 5
_VERSION_CACHE_SECONDS = 86400
_VERSION_TIMEOUT_SECONDS = 0.4


@dataclass
class CheckResult:
    """What a check came to: `blocking` and `notes` are sentences for whoever commits."""

    blocking: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class NumberClaim:
    """Whose a number is."""

    is_mine: bool
    actor: str


def check_staged(*, include_leases: bool) -> bool:
    """Check what is staged. Returns whether the commit is to be blocked."""
    try:
        where = repo.get_repo()
    except NoRepositoryError as error:
        activity_log.print_message(f"{error}; going on without the bus.")
        return False
    try:
        config = load_config(where)
        changes = repo.list_staged_changes(where)
    except (ConfigError, NoRepositoryError) as error:
        return _report_unchecked(where.top, str(error))
    if not changes:
        return False
    governed = _find_new_numbers(config, changes)
    if not governed and not include_leases:
        return False
    return _check_changes(where, config, governed, changes if include_leases else [], remaining_budget())


def check_file(path: Path) -> CheckResult | None:
    """Check one file that was just written. Returns None where there is nothing to say."""
    try:
        where = repo.get_repo(path.parent)
    except NoRepositoryError:
        return None
    try:
        config = load_config(where)
        inside = Path(os.path.realpath(path.parent), path.name).relative_to(os.path.realpath(where.top)).as_posix()
        governed = config.find_governed(inside)
        if governed is None or not repo.is_new(where, inside):
            return None
    except ValueError:
        return None
    except (ConfigError, NoRepositoryError) as error:
        _report_unchecked(where.top, str(error))
        return None
    verdict = _reconcile(where, config, [governed], remaining_budget())
    return _apply_override(where.top, verdict)


def remaining_budget() -> mcp_client.TimeBudget:
    """What is left for the bus."""
    return mcp_client.TimeBudget(
        max(_MIN_CALL_SECONDS, TIME_LIMIT_SECONDS - _INTERPRETER_SECONDS - (time.monotonic() - _PROCESS_STARTED_AT))
    )


def _check_changes(
    where: Repo,
    config: Config,
    governed: list[GovernedFile],
    lease_changes: Sequence[StagedChange],
    budget: mcp_client.TimeBudget,
) -> bool:
    verdict = _reconcile(where, config, governed, budget, lease_changes)
    verdict = _apply_override(where.top, verdict)
    for sentence in [*verdict.notes, *verdict.blocking]:
        activity_log.print_message(sentence)
    _warn_if_outdated(where, config, budget)
    if verdict.blocking:
        activity_log.record(where.top, "blocked", said=verdict.blocking)
        activity_log.print_message(f"Nothing was committed. {OVERRIDE_VARIABLE}=1 commits all the same.")
    return bool(verdict.blocking)


def _apply_override(top: Path, result: CheckResult) -> CheckResult:
    if os.environ.get(OVERRIDE_VARIABLE) != "1" or not result.blocking:
        return result
    activity_log.record(top, "overridden", said=result.blocking)
    return CheckResult(
        [], [*result.notes, *result.blocking, f"{OVERRIDE_VARIABLE}=1: going on all the same; it is recorded."]
    )


def _report_unchecked(top: Path, reason: str) -> bool:
    activity_log.record(top, "proceeded", reason=reason)
    activity_log.print_message(f"not checked: {reason}. Going on without the bus.")
    return False


def _find_new_numbers(config: Config, changes: Sequence[StagedChange]) -> list[GovernedFile]:
    """The numbers that are new: those of new files, but not of files renamed under the same number."""
    found = []
    for change in changes:
        governed = config.find_governed(change.path) if change.is_new else None
        before = config.find_governed(change.old_path) if governed and change.old_path else None
        if governed and (before is None or (before.sequence, before.number) != (governed.sequence, governed.number)):
            found.append(governed)
    return found


def _reconcile(
    where: Repo,
    config: Config,
    governed: list[GovernedFile],
    budget: mcp_client.TimeBudget,
    lease_changes: Sequence[StagedChange] = (),
) -> CheckResult:
    if config.token is None:
        # Not connected is a choice too; one line, so that nobody wonders.
        _report_unchecked(where.top, f"{config.token_variable} is not set and no token is saved")
        return CheckResult()
    by_number: dict[tuple[str, int], list[GovernedFile]] = {}
    for one in governed:
        by_number.setdefault((one.sequence, one.number), []).append(one)
    jobs: list[mcp_client.BusCall] = [partial(_find_claim, sequence, number) for sequence, number in by_number]
    if lease_changes:
        jobs.append(_fetch_leases)
    results = mcp_client.call_in_parallel(config.endpoint, config.token, jobs, budget)
    verdict = CheckResult()
    failed = next((result for result in results if isinstance(result, Exception)), None)
    if lease_changes:
        held = results.pop()
        if not isinstance(held, Exception):
            _check_leases(config, held, lease_changes, verdict)
    _check_numbers(where, config, list(by_number.values()), results, budget, verdict)
    if failed is not None:
        _report_unchecked(where.top, f"the bus at {config.endpoint} cannot be asked: {_describe_error(failed)}")
    return verdict


def _describe_error(error: Exception) -> str:
    return str(error) or type(error).__name__


def _find_claim(sequence: str, number: int, bus: mcp_client.BusClient) -> NumberClaim | None:
    """Who claimed this number: one exact look-up, which also says whether it was us."""
    found = bus.call("query_events", type="claim", sequence=sequence, number=number, limit=1)
    events = found.get("events")
    if not isinstance(events, list):
        raise mcp_client.UnreachableError("it answered without events")
    if not events:
        return None
    event = events[0]
    try:
        if event["payload"]["number"] != number:
            raise mcp_client.UnreachableError("it does not look numbers up; it is older than this kit")
        return NumberClaim(bool(event["mine"]), str(event["actor"]))
    except (KeyError, TypeError):
        raise mcp_client.UnreachableError("its events are not what this kit knows") from None


def _check_numbers(
    where: Repo,
    config: Config,
    groups: list[list[GovernedFile]],
    results: Sequence[Any],
    budget: mcp_client.TimeBudget,
    check_result: CheckResult,
) -> None:
    """Judge each number; claim where nobody has, and where somebody else has."""
    open_ = [
        (group, result)
        for group, result in zip(groups, results)
        if not isinstance(result, Exception) and not (result is not None and result.mine)
    ]
    if len(open_) > _MAX_CLAIMS:
        given: list[Any] = [None] * len(open_)
        unclaimed = sum(result is None for _, result in open_)
        if unclaimed:
            check_result.notes.append(
                f"{unclaimed} new numbers are not claimed. That looks like an import: seed_sequence tells the bus "
                "where your numbers stand."
            )
    else:
        given = mcp_client.call_in_parallel(
            config.endpoint, config.token or "", [partial(_claim_number, where, group[0]) for group, _ in open_], budget
        )
    for (group, result), formatted in zip(open_, given):
        got = formatted if isinstance(formatted, str) else None
        if result is not None:
            check_result.blocking.append(_format_taken(where, group, result, got))
        elif got is not None:
            note = _format_claimed(where, group, got)
            check_result.notes.append(note)
            activity_log.record(where.top, "claimed", sequence=group[0].sequence, formatted=got, path=group[0].path)
        elif isinstance(formatted, Exception):
            one = group[0]
            _report_unchecked(
                where.top, f"{one.sequence} {one.number} could not be claimed: {_describe_error(formatted)}"
            )


def _claim_number(where: Repo, governed: GovernedFile, bus: mcp_client.BusClient) -> str:
    """Claim a number for this file; asking again, in a second try of the same commit, gives the same number."""
    key = hashlib.sha256(
        "\0".join((str(where.top), governed.sequence, governed.path)).encode("utf-8", "surrogateescape")
    )
    note = governed.path.encode("utf-8", "replace").decode()[-500:]
    found = bus.call("claim", sequence=governed.sequence, note=note, idempotency_key=f"kit-{key.hexdigest()[:40]}")
    formatted = found.get("formatted")
    if not isinstance(formatted, str) or not re.search("[0-9]", formatted):
        raise mcp_client.UnreachableError("it answered a claim without a number")
    return formatted


def _format_taken(where: Repo, group: list[GovernedFile], claim: NumberClaim, formatted: str | None) -> str:
    one = group[0]
    said = [f"{_printable_path(one.path)}: {one.sequence} {one.number} is claimed by {claim.actor}."]
    if formatted is None:
        said.append(f"Claim a number of your own (claim {one.sequence}) and rename it.")
    else:
        said.append(f"The next number is {formatted}, and it is claimed for you. Run:")
        said += [f"  {_rename_command(where, each, formatted)}" for each in group]
    return "\n".join(said)


def _format_claimed(where: Repo, group: list[GovernedFile], formatted: str) -> str:
    one = group[0]
    if all(each.path_with_number(formatted) == each.path for each in group):
        return f"{_printable_path(one.path)}: {one.sequence} {formatted} was free and is now claimed for you."
    said = [
        f"{_printable_path(one.path)}: nobody has claimed {one.sequence} {one.number}. {formatted} is claimed for you. Run:"
    ]
    said += [f"  {_rename_command(where, each, formatted)}" for each in group]
    return "\n".join(said)


def _rename_command(where: Repo, governed: GovernedFile, formatted: str) -> str:
    """The command that renames the file, from where the user stands."""
    stands = os.environ.get("GIT_PREFIX") or os.path.relpath(os.getcwd(), where.top)
    if stands.startswith(".."):
        stands = "."
    names = [
        os.path.relpath(path, stands).replace(os.sep, "/")
        for path in (governed.path, governed.path_with_number(formatted))
    ]
    old, new = (_quote_for_shell(name) for name in names)
    move = f"git mv -- {old} {new}"
    try:
        repo.run_git("ls-files", "--error-unmatch", "--", f":(top,literal){governed.path}", cwd=where.top)
    except NoRepositoryError:
        # What git does not know yet it does not move.
        return f"git add -- {old} && {move}"
    return move


def _quote_for_shell(name: str) -> str:
    return f'"{name}"' if os.name == "nt" else shlex.quote(name)


def _printable_path(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()


def _fetch_leases(bus: mcp_client.BusClient) -> tuple[str, list[dict[str, Any]]]:
    """Who we are, and the live leases of the project."""
    me = str(bus.call("whoami")["actor"])
    leases: list[dict[str, Any]] = []
    before: Any = None
    for _ in range(_MAX_LEASE_PAGES):
        found = bus.call("who_holds", **({} if before is None else {"before": before}))
        leases += found["leases"]
        before = found.get("next_before")
        if before is None:
            break
    return me, leases


def _check_leases(
    config: Config,
    actor_and_leases: tuple[str, list[dict[str, Any]]],
    changes: Sequence[StagedChange],
    check_result: CheckResult,
) -> None:
    """Name the files that somebody else holds; those that are strict block."""
    me, leases = actor_and_leases
    shared = [str(lease["surface"]) for lease in leases if lease["actor"] == me and lease.get("mode") == "shared"]
    others = [lease for lease in leases if lease["actor"] != me]
    warned: list[str] = []
    blocked: list[str] = []
    for path in dict.fromkeys(name for change in changes for name in (change.path, change.old_path) if name):
        strictness = config.lease_policy(path)
        for lease in others if strictness != "off" else ():
            if not globs.covers(str(lease["surface"]), path):
                continue
            if lease.get("mode") == "shared" and any(globs.covers(surface, path) for surface in shared):
                continue
            minutes = int(lease.get("expires_in_seconds", 0)) // 60 + 1
            line = f"{_printable_path(path)} is leased by {lease['actor']} ({lease['surface']}, {minutes} min left)"
            (blocked if strictness == "strict" else warned).append(line)
            break
    if warned:
        check_result.notes.append(_format_list(warned, "Agree with them before you push: post on the bus."))
    if blocked:
        check_result.blocking.append(
            _format_list(blocked, "These files are strict here: wait for them, or agree by post.")
        )


def _format_list(lines: list[str], advice: str) -> str:
    more = [f"and {len(lines) - _MAX_LISTED_FILES} more"] if len(lines) > _MAX_LISTED_FILES else []
    return "\n".join([*lines[:_MAX_LISTED_FILES], *more, advice])


def _warn_if_outdated(where: Repo, config: Config, budget: mcp_client.TimeBudget) -> None:
    minimum = find_minimum_version(where, config, min(budget.remaining(), _VERSION_TIMEOUT_SECONDS))
    if minimum is not None and is_older(VERSION, minimum):
        activity_log.print_message(
            f"this kit is {VERSION} and the bus wants {minimum} at least: "
            f"curl -fsSL {config.web_url}/kit/install.py | python3 -"
        )


def find_minimum_version(where: Repo, config: Config, seconds: float) -> str | None:
    """The oldest kit that the server wants, as it said today; None where it is not known. Asks once a day."""
    if config.web_url is None:
        return None
    try:
        memory = activity_log.ensure_state_folder(where.top) / "server.json"
        try:
            known = json.loads(memory.read_text("utf-8"))
            if 0 <= time.time() - known["at"] < _VERSION_CACHE_SECONDS and known["home"] == config.web_url:
                return str(known["minimum"]) if known["minimum"] else None
        except (OSError, ValueError, KeyError, TypeError):
            pass
        if seconds <= 0:
            return None
        address = f"{config.web_url.rstrip('/')}/kit/version.json"
        (said,) = mcp_client.call_in_parallel(
            address, None, [lambda bus: bus.get_json()], mcp_client.TimeBudget(seconds)
        )
        minimum = said.get("minimum") if isinstance(said, dict) else None
        memory.write_text(json.dumps({"at": time.time(), "home": config.web_url, "minimum": minimum}), "utf-8")
    except OSError:
        return None
    return minimum if isinstance(minimum, str) else None


def is_older(version: str, minimum: str) -> bool:
    """Whether one version stands before another; what is no version is never older."""
    try:
        return [int(part) for part in version.split(".")] < [int(part) for part in minimum.split(".")]
    except ValueError:
        return False
