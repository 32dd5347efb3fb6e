"""Claims of numbers on the bus, for the new files of a commit."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Union

from kit import mcp_client
from kit.numbers_in_use import NumberedGroup
from kit.plain_text import one_line

# How many claimed numbers may turn out to be used in the tree before the sequence counts as not seeded.
_MAX_SKIPPED = 5
# How far a number may be above the last one of its sequence to be kept out of later claims.
MAX_JUMP = 20
_MAX_NOTE_LENGTH = 500


@dataclass(frozen=True)
class NumberClaim:
    """The claim of a number: its actor, and whether that is the caller."""

    is_mine: bool
    actor: str


@dataclass(frozen=True)
class LastNumber:
    """The last number of a sequence, and whether it was seeded instead of claimed."""

    number: int
    is_seed: bool


@dataclass(frozen=True)
class Claimed:
    """A number that is claimed for a group; `after_seed` is the seeded number before the first claim."""

    number: int
    formatted: str
    after_seed: int | None = None


@dataclass(frozen=True)
class Behind:
    """No number was claimed: the bus does not know the history of the sequence; `last_number` is None if it is new."""

    last_number: int | None


# The claim of a number, None for an unclaimed number, or the error of the look-up.
ClaimLookup = Union[NumberClaim, None, Exception]
ClaimOutcome = Union[Claimed, Behind, Exception]
IsTaken = Callable[[int, NumberedGroup], bool]


def find_claim(sequence: str, number: int, bus: mcp_client.BusClient) -> NumberClaim | None:
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


def find_last_number(sequence: str, bus: mcp_client.BusClient) -> LastNumber | None:
    """Find the last number of a sequence; None if it was neither claimed nor seeded."""
    try:
        events = bus.call("query_events", sequence=sequence, limit=1)["events"]
        if not events:
            return None
        payload = events[0]["payload"]
        return LastNumber(int(payload["number" if "number" in payload else "current"]), "number" not in payload)
    except (KeyError, TypeError, ValueError):
        raise mcp_client.UnreachableError("this kit does not know the format of the events") from None


def claim_numbers(
    groups: Sequence[NumberedGroup], highest: int, is_taken: IsTaken, bus: mcp_client.BusClient
) -> list[ClaimOutcome]:
    """Claim a number for each group of one sequence, one after the other.

    Args:
        groups: at least one group; all are of one sequence.
        highest: the highest number of the sequence in the repository.
        is_taken: whether the repository has a number outside a group, so that it is no proposal for it.

    Returns:
        The outcome for each group, in order.
    """
    sequence = groups[0].sequence
    last = find_last_number(sequence, bus)
    if _is_behind(last, highest, groups[0], is_taken):
        return [Behind(last.number if last else None)] * len(groups)
    outcomes: dict[int, ClaimOutcome] = {}
    next_number = last.number + 1 if last else 1
    after_seed = last.number if last and last.is_seed else None
    while len(outcomes) < len(groups):
        # A group whose own number is next gets it; a second attempt finds the same number for each file.
        waiting = [index for index in range(len(groups)) if index not in outcomes]
        index = next((index for index in waiting if _wants(groups[index], next_number)), waiting[0])
        try:
            claimed = _claim_free_number(groups[index], is_taken, after_seed, bus)
        except (mcp_client.UnreachableError, mcp_client.RefusedError) as error:
            outcomes.update(dict.fromkeys(waiting, error))
            break
        outcomes[index] = claimed if claimed is not None else Behind(next_number - 1)
        if claimed is not None:
            next_number, after_seed = max(next_number, claimed.number + 1), None
    return [outcomes[index] for index in range(len(groups))]


def reserve_number(group: NumberedGroup, bus: mcp_client.BusClient) -> bool:
    """Keep a number that a file jumped to out of later claims. Returns whether that is so.

    A project-admin raises the sequence; others claim the numbers up to it.
    """
    last = find_last_number(group.sequence, bus)
    if last is not None and last.number >= group.number:
        return True
    if last is None or group.number - last.number > MAX_JUMP:
        return False
    try:
        bus.call("seed_sequence", sequence=group.sequence, current=group.number)
        return True
    except mcp_client.RefusedError:
        pass
    for attempt in range(MAX_JUMP):
        number, _ = _claim(group, f"reserve {attempt}", bus)
        if number >= group.number:
            return True
    return False


def _is_behind(last: LastNumber | None, highest: int, group: NumberedGroup, is_taken: IsTaken) -> bool:
    """Whether the next numbers of the sequence are used in the repository, so that it has to be seeded."""
    if last is None:
        return highest > 0
    numbers = range(last.number + 1, last.number + 2 + _MAX_SKIPPED)
    return last.number < highest and all(is_taken(number, group) for number in numbers)


def _wants(group: NumberedGroup, number: int) -> bool:
    return group.number == number and not group.twins


def _claim_free_number(
    group: NumberedGroup, is_taken: IsTaken, after_seed: int | None, bus: mcp_client.BusClient
) -> Claimed | None:
    for attempt in range(_MAX_SKIPPED + 1):
        number, formatted = _claim(group, str(attempt), bus)
        if _wants(group, number) or not is_taken(number, group):
            return Claimed(number, formatted, after_seed)
    return None


def _claim(group: NumberedGroup, purpose: str, bus: mcp_client.BusClient) -> tuple[int, str]:
    """Claim a number for a file; a second attempt, also in another work tree or clone, gets the same number."""
    path = group.first.path
    key = hashlib.sha256("\0".join((group.sequence, path, purpose)).encode("utf-8", "surrogateescape"))
    # Other agents read the note in the ledger.
    note = one_line(path)[-_MAX_NOTE_LENGTH:]
    claim = bus.call("claim", sequence=group.sequence, note=note, idempotency_key=f"kit-{key.hexdigest()[:40]}")
    number, formatted = claim.get("number"), claim.get("formatted")
    if not isinstance(number, int) or not isinstance(formatted, str) or not re.search("[0-9]", formatted):
        raise mcp_client.UnreachableError("the response to claim has no number")
    return number, formatted
