"""The reconcile check: the numbers of new files against the claims on the bus, the tree and the other branches."""

from __future__ import annotations

import os
import shlex
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from kit import activity_log, claims, git_history, mcp_client
from kit.check_result import CheckResult, describe_error, report_unchecked
from kit.claims import Behind, Claimed, ClaimLookup, ClaimOutcome
from kit.config import Config
from kit.numbering import GovernedFile, highest_number
from kit.numbers_in_use import NumberedGroup, NumbersInUse
from kit.plain_text import one_line
from kit.repo import Repo

# A commit with more new numbers is an import, and claims none.
_MAX_CLAIMS = 20
_MAX_LISTED_TWINS = 10


@dataclass
class NumberCheck:
    """The check of the new numbers of one commit or of one file.

    Attributes:
        in_commit: whether the files are part of a commit that proceeds unless it is blocked.
    """

    work_tree: Repo
    config: Config
    in_use: NumbersInUse
    budget: mcp_client.TimeBudget
    in_commit: bool
    _reserved: set[int] = field(default_factory=set)

    def list_lookups(self) -> list[mcp_client.BusCall]:
        """List the calls that look up the claims of the numbers, one for each group."""
        return [partial(claims.find_claim, group.sequence, group.number) for group in self.in_use.groups]

    def report_locally(self, result: CheckResult) -> None:
        """Name files with one number as far as the repository shows it, without the bus."""
        self._report_repository(result)
        for group in self.in_use.groups:
            if group.twins:
                result.notes.append(f"{_format_twins(group)}\n{_advise(group)}")

    def decide(self, lookups: Sequence[ClaimLookup], result: CheckResult, *, may_reserve: bool) -> None:
        """Check each number, and claim a number for each group that needs another one.

        Args:
            lookups: the claim of the number of each group.
            result: receives the messages.
            may_reserve: whether a commit proceeds that is not blocked by its numbers.
        """
        self._report_repository(result)
        pending: dict[int, ClaimLookup] = {}
        for index, (group, lookup) in enumerate(zip(self.in_use.groups, lookups)):
            is_mine = isinstance(lookup, claims.NumberClaim) and lookup.is_mine
            if isinstance(lookup, Exception):
                if group.twins:
                    result.notes.append(f"{_format_twins(group)}\n{_advise(group)}")
            elif not is_mine or group.twins:
                pending[index] = lookup
        groups = self.in_use.groups
        unknown = self.in_use.drop_known([groups[index] for index in pending])
        pending = {index: lookup for index, lookup in pending.items() if groups[index] in unknown}
        outcomes = self._claim({index: groups[index] for index in pending}, pending, result)
        is_blocked = any(_is_taken(lookup) for lookup in pending.values())
        if self.in_commit and may_reserve and not is_blocked:
            self._reserve_jumps(pending, outcomes)
        for index, lookup in pending.items():
            self._report(groups[index], lookup, outcomes[index], index in self._reserved, result)
        self._report_behind([(groups[index], outcomes[index]) for index in pending], result)

    def _report_repository(self, result: CheckResult) -> None:
        for sequence, (first, second) in self.in_use.split_sequences.items():
            report_unchecked(
                self.work_tree,
                f"the folders of {sequence} are numbered each by itself ({one_line(first or './')} and "
                f"{one_line(second or './')}); give each a sequence of its own in the configuration",
            )
        for governed, twin in self.in_use.merged_twins[:_MAX_LISTED_TWINS]:
            result.notes.append(
                f"{one_line(governed.path)} comes from another branch, and {one_line(twin.path)} has the number "
                f"{governed.number} of {governed.sequence} too. Agree with its author on which one gets a new number."
            )

    def _claim(
        self, groups: dict[int, NumberedGroup], lookups: dict[int, ClaimLookup], result: CheckResult
    ) -> dict[int, ClaimOutcome | None]:
        """Claim a number for each group; None for all if there are too many."""
        if len(groups) > _MAX_CLAIMS:
            self._report_import([groups[index] for index, lookup in lookups.items() if lookup is None], result)
            return dict.fromkeys(groups)
        by_sequence: dict[str, list[int]] = defaultdict(list)
        for index, group in groups.items():
            by_sequence[group.sequence].append(index)
        calls = [
            partial(
                claims.claim_numbers,
                [groups[index] for index in indexes],
                self.in_use.find_highest(sequence)[0],
                self.in_use.is_taken,
            )
            for sequence, indexes in by_sequence.items()
        ]
        answers = mcp_client.call_in_parallel(self.config.endpoint, self.config.token, calls, self.budget)
        outcomes: dict[int, ClaimOutcome | None] = {}
        for indexes, answer in zip(by_sequence.values(), answers):
            outcomes.update(zip(indexes, [answer] * len(indexes) if isinstance(answer, Exception) else answer))
        return outcomes

    def _report_import(self, groups: Sequence[NumberedGroup], result: CheckResult) -> None:
        by_sequence: dict[str, list[int]] = defaultdict(list)
        for group in groups:
            by_sequence[group.sequence].append(group.number)
        for sequence, numbers in by_sequence.items():
            highest = highest_number([*numbers, self.in_use.find_highest(sequence)[0]])
            result.notes.append(
                f"{len(numbers)} new numbers of {sequence} are unclaimed. If this is an import, call "
                f'seed_sequence(sequence="{sequence}", current={highest}).'
            )

    def _reserve_jumps(self, lookups: dict[int, ClaimLookup], outcomes: dict[int, ClaimOutcome | None]) -> None:
        """Keep numbers that files skipped to out of later claims, since the commit has them."""
        highest: dict[str, tuple[int, int]] = {}
        for index, lookup in lookups.items():
            group, outcome = self.in_use.groups[index], outcomes[index]
            if lookup is None and isinstance(outcome, Claimed) and group.number > outcome.number:
                highest[group.sequence] = max(highest.get(group.sequence, (0, 0)), (group.number, index))
        calls = [partial(claims.reserve_number, self.in_use.groups[index]) for _, index in highest.values()]
        if not calls:
            return
        answers = mcp_client.call_in_parallel(self.config.endpoint, self.config.token, calls, self.budget)
        self._reserved = {index for (_, index), answer in zip(highest.values(), answers) if answer is True}

    def _report(
        self,
        group: NumberedGroup,
        lookup: ClaimLookup,
        outcome: ClaimOutcome | None,
        is_reserved: bool,
        result: CheckResult,
    ) -> None:
        first = group.first
        if isinstance(lookup, claims.NumberClaim) and not lookup.is_mine:
            actor = one_line(lookup.actor)
            lines = [f"{one_line(first.path)}: {first.sequence} {first.number} is claimed by {actor}."]
        elif group.twins:
            lines = []
        elif outcome is None or isinstance(outcome, Behind):
            return
        elif isinstance(outcome, Exception):
            number = f"{first.sequence} {first.number}"
            report_unchecked(self.work_tree, f"{number} could not be claimed: {describe_error(outcome)}")
            return
        else:
            lines = [f"{one_line(first.path)}: {first.sequence} {first.number} is unclaimed."]
        if group.twins:
            lines.append(_format_twins(group))
        if not isinstance(outcome, Claimed):
            lines.append(_advise(group))
        elif outcome.number == group.number:
            lines = [_format_confirmed(group, outcome)]
        else:
            lines[-1] += f" The next number, {outcome.formatted}, is claimed for you.{_run_prefix(group)}"
            lines += self._list_renames(group, outcome.formatted)
            if is_reserved:
                lines.append(f"{first.sequence} {first.number} itself is kept out of later claims.")
        if isinstance(outcome, Claimed):
            activity_log.record(
                self.work_tree, "claimed", sequence=first.sequence, formatted=outcome.formatted, path=first.path
            )
        (result.blocking if _is_taken(lookup) else result.notes).append("\n".join(lines))

    def _report_behind(
        self, outcomes: Sequence[tuple[NumberedGroup, ClaimOutcome | None]], result: CheckResult
    ) -> None:
        """Say how to seed the sequences whose history the bus does not know."""
        behind: dict[str, int | None] = {}
        numbers: dict[str, list[int]] = defaultdict(list)
        for group, outcome in outcomes:
            numbers[group.sequence].append(group.number)
            if isinstance(outcome, Behind):
                behind[group.sequence] = outcome.last_number
        for sequence, last_number in behind.items():
            highest, path = self.in_use.find_highest(sequence)
            current = highest_number([highest, *numbers[sequence]]) if self.in_commit else highest
            is_at = "the bus has none" if last_number is None else f"the bus is at {last_number}"
            seeder = "Seed" if last_number is None else "A project-admin has to seed"
            result.notes.append(
                f"{sequence}: the repository has numbers up to {highest} ({one_line(path)}), but {is_at}, so that it "
                "would give out numbers that are in use; no number was claimed.\n"
                f'{seeder} the sequence once: seed_sequence(sequence="{sequence}", current={current}).'
            )

    def _list_renames(self, group: NumberedGroup, formatted: str) -> list[str]:
        governed_files = [file.governed for file in group.files]
        return [_format_rename(self.work_tree, governed, formatted) for governed in governed_files]


def _is_taken(lookup: ClaimLookup) -> bool:
    return isinstance(lookup, claims.NumberClaim) and not lookup.is_mine


def _advise(group: NumberedGroup) -> str:
    return f"Claim your own number (claim {group.sequence}) and rename the file."


def _format_twins(group: NumberedGroup) -> str:
    twin = group.twins[0]
    place = f" on branch {one_line(twin.branch)}" if twin.branch else ""
    more = f", and {len(group.twins) - 1} more" if len(group.twins) > 1 else ""
    return (
        f"{one_line(group.first.path)}: {group.sequence} {group.number} is also the number of "
        f"{one_line(twin.path)}{place}{more}."
    )


def _format_confirmed(group: NumberedGroup, outcome: Claimed) -> str:
    seeded = f" (the first after the sequence was seeded with {outcome.after_seed})" if outcome.after_seed else ""
    path, sequence = one_line(group.first.path), group.sequence
    return f"{path}: {sequence} {outcome.formatted} was free and is now claimed for you{seeded}."


def _run_prefix(group: NumberedGroup) -> str:
    return " Run:" if all(file.governed.path.isprintable() for file in group.files) else ""


def _format_rename(work_tree: Repo, governed: GovernedFile, formatted: str) -> str:
    """Format the command that renames the file, relative to the user's current folder."""
    new_path = governed.path_with_number(formatted)
    if not new_path.isprintable():
        # A line break in a command would be a line of its own.
        return f"Rename {one_line(governed.path)} to {one_line(new_path)}."
    folder = os.environ.get("GIT_PREFIX") or os.path.relpath(os.getcwd(), work_tree.top)
    if folder.startswith(".."):
        folder = "."
    old, new = (
        _quote_for_shell(os.path.relpath(path, folder).replace(os.sep, "/")) for path in (governed.path, new_path)
    )
    # git mv does not move untracked files.
    add = "" if git_history.is_staged(work_tree, governed.path) else f"git add -- {old} && "
    return f"  {add}git mv -- {old} {new}"


def _quote_for_shell(name: str) -> str:
    return f'"{name}"' if os.name == "nt" else shlex.quote(name)
