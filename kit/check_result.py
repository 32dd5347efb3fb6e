"""The messages of a check, for the user or for an agent."""

from __future__ import annotations

from dataclasses import dataclass, field

from kit import activity_log
from kit.repo import Repo


@dataclass
class CheckResult:
    """The messages of a check; the commit is blocked if `blocking` has any."""

    blocking: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def print_messages(self) -> None:
        """Print all messages on standard error."""
        for message in [*self.notes, *self.blocking]:
            activity_log.print_message(message)


def report_unchecked(work_tree: Repo, reason: str) -> None:
    """Print and record that something was not checked, and why."""
    activity_log.record(work_tree, "proceeded", reason=reason)
    activity_log.print_message(f"not checked: {reason}. Continuing without the bus.")


def describe_error(error: BaseException) -> str:
    """Describe an error for a message."""
    return str(error) or type(error).__name__
