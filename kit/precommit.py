"""The reconcile hook and the lease guard: checks of a commit, or of one file, against the bus.

Two cases block: another participant has claimed the number of a new governed file, and, only if the repository asks
for it, another participant has leased files that are "strict". After any failure the commit proceeds, with a message.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kit import VERSION, activity_log, commit_command, git_history, lease_guard, mcp_client, repo
from kit.check_result import CheckResult, describe_error, report_unchecked
from kit.config import Config, ConfigError, load_config
from kit.git_history import StagedChange
from kit.plain_text import one_line
from kit.repo import NoRepositoryError, Repo

if TYPE_CHECKING:
    # Imported where a commit adds numbered files: most commits need none of it.
    from kit.numbers_in_use import NumbersInUse

# For the whole process. The time for starting and ending the interpreter is subtracted, and the bus gets its minimum
# also if git was slow.
TIME_LIMIT_SECONDS = 1.5
_INTERPRETER_SECONDS = 0.3
_MIN_CALL_SECONDS = 0.5
_PROCESS_STARTED_AT = time.monotonic()
OVERRIDE_VARIABLE = "LLM_BUS_OVERRIDE"
_VERSION_CACHE_SECONDS = 86400
_VERSION_TIMEOUT_SECONDS = 0.4
# Of one commit that a command is about to make; a larger one is an import, of which no content is compared.
_MAX_HASHED_FILES = 20


def check_staged(*, include_leases: bool) -> bool:
    """Check the staged files. Returns whether to block the commit."""
    try:
        work_tree = repo.get_repo()
    except NoRepositoryError as error:
        activity_log.print_message(f"{error}. Continuing without the bus.")
        return False
    try:
        config = load_config(work_tree)
        changes = git_history.list_staged_changes(work_tree)
        in_use = _find_numbers(work_tree, config, changes)
        if not changes or (in_use is None and not include_leases):
            return False
    except (ConfigError, NoRepositoryError) as error:
        report_unchecked(work_tree, str(error))
        return False
    lease_changes = changes if include_leases else []
    budget = remaining_budget()
    result = _apply_override(work_tree, _check(work_tree, config, in_use, budget, lease_changes, in_commit=True))
    result.print_messages()
    _warn_if_outdated(work_tree, config, budget)
    if result.blocking:
        activity_log.record(work_tree, "blocked", messages=result.blocking)
        activity_log.print_message(f"The commit was blocked. Set {OVERRIDE_VARIABLE}=1 to commit anyway.")
    return bool(result.blocking)


def check_command(command: str, folder: Path) -> CheckResult | None:
    """Check the commit that a shell command is about to make. Returns None if it makes none, or the check failed.

    For clients whose shell runs no hooks of git.
    """
    planned = commit_command.find_commit(command, folder)
    if planned is None:
        return None
    try:
        work_tree = repo.get_repo(planned.folder)
    except (NoRepositoryError, OSError):
        return None
    try:
        config = load_config(work_tree)
        changes = commit_command.list_changes(work_tree, planned)
        is_governed = [change.is_new and config.find_governed(change.path) is not None for change in changes]
        if sum(is_governed) <= _MAX_HASHED_FILES:
            changes = [
                replace(change, blob=git_history.hash_file(work_tree, change.path)) if needs_blob else change
                for change, needs_blob in zip(changes, is_governed)
            ]
        in_use = _find_numbers(work_tree, config, changes)
    except (ConfigError, NoRepositoryError) as error:
        report_unchecked(work_tree, str(error))
        return None
    if not changes:
        return None
    result = _check(work_tree, config, in_use, remaining_budget(), changes, in_commit=True)
    if planned.variables.get(OVERRIDE_VARIABLE) == "1":
        os.environ[OVERRIDE_VARIABLE] = "1"
    return _apply_override(work_tree, result)


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
        if governed is None or git_history.is_in_head(work_tree, relative_path):
            return None
        change = StagedChange(relative_path, True, blob=git_history.hash_file(work_tree, relative_path))
        in_use = _find_numbers(work_tree, config, [change])
    except ValueError:
        # The file is outside the work tree.
        return None
    except (ConfigError, NoRepositoryError) as error:
        report_unchecked(work_tree, str(error))
        return None
    result = _check(work_tree, config, in_use, remaining_budget(), [], in_commit=False)
    return _apply_override(work_tree, result)


def remaining_budget() -> mcp_client.TimeBudget:
    """Return the time that is left for calls of the bus."""
    return mcp_client.TimeBudget(
        max(_MIN_CALL_SECONDS, TIME_LIMIT_SECONDS - _INTERPRETER_SECONDS - (time.monotonic() - _PROCESS_STARTED_AT))
    )


def _find_numbers(work_tree: Repo, config: Config, changes: Sequence[StagedChange]) -> NumbersInUse | None:
    """Find the numbers that changes add, and those in use; None if no new file has a number."""
    if not any(change.is_new and config.find_governed(change.path) for change in changes):
        return None
    from kit import numbers_in_use

    return numbers_in_use.NumbersInUse(work_tree, config, numbers_in_use.find_added_files(config, changes))


def _check(
    work_tree: Repo,
    config: Config,
    in_use: NumbersInUse | None,
    budget: mcp_client.TimeBudget,
    lease_changes: Sequence[StagedChange],
    *,
    in_commit: bool,
) -> CheckResult:
    result = CheckResult()
    numbers = None
    if in_use is not None:
        from kit.number_check import NumberCheck

        numbers = NumberCheck(work_tree, config, in_use, budget, in_commit)
    if config.token is None:
        if numbers:
            numbers.report_locally(result)
        # A repository without a token is a valid choice, so this is one line.
        report_unchecked(work_tree, config.token_problem)
        return result
    calls = numbers.list_lookups() if numbers else []
    if lease_changes:
        calls += [lease_guard.fetch_identity, lease_guard.fetch_leases]
    answers = mcp_client.call_in_parallel(config.endpoint, config.token, calls, budget)
    error = next((answer for answer in answers if isinstance(answer, Exception)), None)
    if lease_changes:
        identity, leases = answers[-2:]
        if not isinstance(identity, Exception) and not isinstance(leases, Exception):
            lease_guard.check_leases(config, identity, leases, lease_changes, result)
    if numbers:
        may_reserve = not result.blocking or os.environ.get(OVERRIDE_VARIABLE) == "1"
        numbers.decide(answers, result, may_reserve=may_reserve)
    if error is not None:
        report_unchecked(
            work_tree, f"the bus at {one_line(config.endpoint)} could not be queried: {describe_error(error)}"
        )
    return result


def _apply_override(work_tree: Repo, result: CheckResult) -> CheckResult:
    if os.environ.get(OVERRIDE_VARIABLE) != "1" or not result.blocking:
        return result
    activity_log.record(work_tree, "overridden", messages=result.blocking)
    note = f"{OVERRIDE_VARIABLE}=1: continuing anyway; this is recorded in {activity_log.log_path(work_tree)}."
    return CheckResult([], [*result.notes, *result.blocking, note])


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
