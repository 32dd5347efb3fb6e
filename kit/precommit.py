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
from kit.config import Config, ConfigError, Governed, load
from kit.repo import NoRepositoryError, Repo, Staged

# For everything, from the start of the process. What an interpreter takes to start and to end is left out of it, and
# the bus gets its part also where git was slow.
SECONDS = 1.5
_AROUND_SECONDS = 0.3
_AT_LEAST_SECONDS = 0.5
_BEGAN = time.monotonic()
OVERRIDE = "LLM_BUS_OVERRIDE"
# A commit that brings more new numbers than this is an import, and burns none.
_MOST_CLAIMS = 20
_MOST_LISTED = 10
_MOST_PAGES = 5
_A_DAY = 86400
_VERSION_SECONDS = 0.4


@dataclass
class Verdict:
    """What a check came to: `blocking` and `notes` are sentences for whoever commits."""

    blocking: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Claim:
    """Whose a number is."""

    mine: bool
    actor: str


def staged(*, leases: bool) -> bool:
    """Check what is staged. Returns whether the commit is to be blocked."""
    try:
        where = repo.find()
    except NoRepositoryError as error:
        activity_log.say(f"{error}; going on without the bus.")
        return False
    try:
        config = load(where)
        changes = repo.staged(where)
    except (ConfigError, NoRepositoryError) as error:
        return _proceed(where.top, str(error))
    if not changes:
        return False
    governed = _numbers(config, changes)
    if not governed and not leases:
        return False
    return _decide(where, config, governed, changes if leases else [], budget())


def one_file(path: Path) -> Verdict | None:
    """Check one file that was just written. Returns None where there is nothing to say."""
    try:
        where = repo.find(path.parent)
    except NoRepositoryError:
        return None
    try:
        config = load(where)
        inside = Path(os.path.realpath(path.parent), path.name).relative_to(os.path.realpath(where.top)).as_posix()
        governed = config.governed(inside)
        if governed is None or not repo.is_new(where, inside):
            return None
    except ValueError:
        return None
    except (ConfigError, NoRepositoryError) as error:
        _proceed(where.top, str(error))
        return None
    verdict = _reconcile(where, config, [governed], budget())
    return _overridden(where.top, verdict)


def budget() -> mcp_client.Budget:
    """What is left for the bus."""
    return mcp_client.Budget(max(_AT_LEAST_SECONDS, SECONDS - _AROUND_SECONDS - (time.monotonic() - _BEGAN)))


def _decide(
    where: Repo, config: Config, governed: list[Governed], touched: Sequence[Staged], budget: mcp_client.Budget
) -> bool:
    verdict = _reconcile(where, config, governed, budget, touched)
    verdict = _overridden(where.top, verdict)
    for sentence in [*verdict.notes, *verdict.blocking]:
        activity_log.say(sentence)
    _say_if_old(where, config, budget)
    if verdict.blocking:
        activity_log.record(where.top, "blocked", said=verdict.blocking)
        activity_log.say(f"Nothing was committed. {OVERRIDE}=1 commits all the same.")
    return bool(verdict.blocking)


def _overridden(top: Path, verdict: Verdict) -> Verdict:
    if os.environ.get(OVERRIDE) != "1" or not verdict.blocking:
        return verdict
    activity_log.record(top, "overridden", said=verdict.blocking)
    return Verdict([], [*verdict.notes, *verdict.blocking, f"{OVERRIDE}=1: going on all the same; it is recorded."])


def _proceed(top: Path, reason: str) -> bool:
    activity_log.record(top, "proceeded", reason=reason)
    activity_log.say(f"not checked: {reason}. Going on without the bus.")
    return False


def _numbers(config: Config, changes: Sequence[Staged]) -> list[Governed]:
    """The numbers that are new: those of new files, but not of files renamed under the same number."""
    found = []
    for change in changes:
        governed = config.governed(change.path) if change.new else None
        before = config.governed(change.before) if governed and change.before else None
        if governed and (before is None or (before.sequence, before.number) != (governed.sequence, governed.number)):
            found.append(governed)
    return found


def _reconcile(
    where: Repo, config: Config, governed: list[Governed], budget: mcp_client.Budget, touched: Sequence[Staged] = ()
) -> Verdict:
    if config.token is None:
        # Not connected is a choice too; one line, so that nobody wonders.
        _proceed(where.top, f"{config.token_env} is not set and no token is saved")
        return Verdict()
    by_number: dict[tuple[str, int], list[Governed]] = {}
    for one in governed:
        by_number.setdefault((one.sequence, one.number), []).append(one)
    jobs: list[mcp_client.Job] = [partial(_claim_of, sequence, number) for sequence, number in by_number]
    if touched:
        jobs.append(_holders)
    results = mcp_client.gather(config.endpoint, config.token, jobs, budget)
    verdict = Verdict()
    failed = next((result for result in results if isinstance(result, Exception)), None)
    if touched:
        held = results.pop()
        if not isinstance(held, Exception):
            _guard(config, held, touched, verdict)
    _numbered(where, config, list(by_number.values()), results, budget, verdict)
    if failed is not None:
        _proceed(where.top, f"the bus at {config.endpoint} cannot be asked: {_reason(failed)}")
    return verdict


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _claim_of(sequence: str, number: int, bus: mcp_client.Bus) -> Claim | None:
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
        return Claim(bool(event["mine"]), str(event["actor"]))
    except (KeyError, TypeError):
        raise mcp_client.UnreachableError("its events are not what this kit knows") from None


def _numbered(
    where: Repo,
    config: Config,
    groups: list[list[Governed]],
    results: Sequence[Any],
    budget: mcp_client.Budget,
    verdict: Verdict,
) -> None:
    """Judge each number; claim where nobody has, and where somebody else has."""
    open_ = [
        (group, result)
        for group, result in zip(groups, results)
        if not isinstance(result, Exception) and not (result is not None and result.mine)
    ]
    if len(open_) > _MOST_CLAIMS:
        given: list[Any] = [None] * len(open_)
        unclaimed = sum(result is None for _, result in open_)
        if unclaimed:
            verdict.notes.append(
                f"{unclaimed} new numbers are not claimed. That looks like an import: seed_sequence tells the bus "
                "where your numbers stand."
            )
    else:
        given = mcp_client.gather(
            config.endpoint, config.token or "", [partial(_claim, where, group[0]) for group, _ in open_], budget
        )
    for (group, result), formatted in zip(open_, given):
        got = formatted if isinstance(formatted, str) else None
        if result is not None:
            verdict.blocking.append(_taken(where, group, result, got))
        elif got is not None:
            note = _claimed(where, group, got)
            verdict.notes.append(note)
            activity_log.record(where.top, "claimed", sequence=group[0].sequence, formatted=got, path=group[0].path)
        elif isinstance(formatted, Exception):
            one = group[0]
            _proceed(where.top, f"{one.sequence} {one.number} could not be claimed: {_reason(formatted)}")


def _claim(where: Repo, one: Governed, bus: mcp_client.Bus) -> str:
    """Claim a number for this file; asking again, in a second try of the same commit, gives the same number."""
    key = hashlib.sha256("\0".join((str(where.top), one.sequence, one.path)).encode("utf-8", "surrogateescape"))
    note = one.path.encode("utf-8", "replace").decode()[-500:]
    found = bus.call("claim", sequence=one.sequence, note=note, idempotency_key=f"kit-{key.hexdigest()[:40]}")
    formatted = found.get("formatted")
    if not isinstance(formatted, str) or not re.search("[0-9]", formatted):
        raise mcp_client.UnreachableError("it answered a claim without a number")
    return formatted


def _taken(where: Repo, group: list[Governed], claim: Claim, formatted: str | None) -> str:
    one = group[0]
    said = [f"{_shown(one.path)}: {one.sequence} {one.number} is claimed by {claim.actor}."]
    if formatted is None:
        said.append(f"Claim a number of your own (claim {one.sequence}) and rename it.")
    else:
        said.append(f"The next number is {formatted}, and it is claimed for you. Run:")
        said += [f"  {_move(where, each, formatted)}" for each in group]
    return "\n".join(said)


def _claimed(where: Repo, group: list[Governed], formatted: str) -> str:
    one = group[0]
    if all(each.renamed(formatted) == each.path for each in group):
        return f"{_shown(one.path)}: {one.sequence} {formatted} was free and is now claimed for you."
    said = [f"{_shown(one.path)}: nobody has claimed {one.sequence} {one.number}. {formatted} is claimed for you. Run:"]
    said += [f"  {_move(where, each, formatted)}" for each in group]
    return "\n".join(said)


def _move(where: Repo, one: Governed, formatted: str) -> str:
    """The command that renames the file, from where the user stands."""
    stands = os.environ.get("GIT_PREFIX") or os.path.relpath(os.getcwd(), where.top)
    if stands.startswith(".."):
        stands = "."
    names = [os.path.relpath(path, stands).replace(os.sep, "/") for path in (one.path, one.renamed(formatted))]
    old, new = (_quoted(name) for name in names)
    move = f"git mv -- {old} {new}"
    try:
        repo.git("ls-files", "--error-unmatch", "--", f":(top,literal){one.path}", cwd=where.top)
    except NoRepositoryError:
        # What git does not know yet it does not move.
        return f"git add -- {old} && {move}"
    return move


def _quoted(name: str) -> str:
    return f'"{name}"' if os.name == "nt" else shlex.quote(name)


def _shown(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()


def _holders(bus: mcp_client.Bus) -> tuple[str, list[dict[str, Any]]]:
    """Who we are, and the live leases of the project."""
    me = str(bus.call("whoami")["actor"])
    leases: list[dict[str, Any]] = []
    before: Any = None
    for _ in range(_MOST_PAGES):
        found = bus.call("who_holds", **({} if before is None else {"before": before}))
        leases += found["leases"]
        before = found.get("next_before")
        if before is None:
            break
    return me, leases


def _guard(config: Config, held: tuple[str, list[dict[str, Any]]], touched: Sequence[Staged], verdict: Verdict) -> None:
    """Name the files that somebody else holds; those that are strict block."""
    me, leases = held
    shared = [str(lease["surface"]) for lease in leases if lease["actor"] == me and lease.get("mode") == "shared"]
    others = [lease for lease in leases if lease["actor"] != me]
    warned: list[str] = []
    blocked: list[str] = []
    for path in dict.fromkeys(name for change in touched for name in (change.path, change.before) if name):
        strictness = config.strictness(path)
        for lease in others if strictness != "off" else ():
            if not globs.covers(str(lease["surface"]), path):
                continue
            if lease.get("mode") == "shared" and any(globs.covers(surface, path) for surface in shared):
                continue
            minutes = int(lease.get("expires_in_seconds", 0)) // 60 + 1
            line = f"{_shown(path)} is leased by {lease['actor']} ({lease['surface']}, {minutes} min left)"
            (blocked if strictness == "strict" else warned).append(line)
            break
    if warned:
        verdict.notes.append(_list(warned, "Agree with them before you push: post on the bus."))
    if blocked:
        verdict.blocking.append(_list(blocked, "These files are strict here: wait for them, or agree by post."))


def _list(lines: list[str], advice: str) -> str:
    more = [f"and {len(lines) - _MOST_LISTED} more"] if len(lines) > _MOST_LISTED else []
    return "\n".join([*lines[:_MOST_LISTED], *more, advice])


def _say_if_old(where: Repo, config: Config, budget: mcp_client.Budget) -> None:
    minimum = wanted(where, config, min(budget.left(), _VERSION_SECONDS))
    if minimum is not None and older(VERSION, minimum):
        activity_log.say(
            f"this kit is {VERSION} and the bus wants {minimum} at least: "
            f"curl -fsSL {config.home}/kit/install.py | python3 -"
        )


def wanted(where: Repo, config: Config, seconds: float) -> str | None:
    """The oldest kit that the server wants, as it said today; None where it is not known. Asks once a day."""
    if config.home is None:
        return None
    try:
        memory = activity_log.state(where.top) / "server.json"
        try:
            known = json.loads(memory.read_text("utf-8"))
            if 0 <= time.time() - known["at"] < _A_DAY and known["home"] == config.home:
                return str(known["minimum"]) if known["minimum"] else None
        except (OSError, ValueError, KeyError, TypeError):
            pass
        if seconds <= 0:
            return None
        address = f"{config.home.rstrip('/')}/kit/version.json"
        (said,) = mcp_client.gather(address, None, [lambda bus: bus.get()], mcp_client.Budget(seconds))
        minimum = said.get("minimum") if isinstance(said, dict) else None
        memory.write_text(json.dumps({"at": time.time(), "home": config.home, "minimum": minimum}), "utf-8")
    except OSError:
        return None
    return minimum if isinstance(minimum, str) else None


def older(version: str, minimum: str) -> bool:
    """Whether one version stands before another; what is no version is never older."""
    try:
        return [int(part) for part in version.split(".")] < [int(part) for part in minimum.split(".")]
    except ValueError:
        return False
