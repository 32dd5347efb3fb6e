"""The record of a run: every operation with the moments of its invocation and its answer."""

import itertools
import threading
import time
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Outcome(Enum):
    """What a client knows of its operation."""

    OK = "ok"  # answered with a result
    REFUSED = "refused"  # answered with an error that promises that nothing was changed
    UNKNOWN = "unknown"  # not answered, or answered as unavailable: it may have been applied


@dataclass(frozen=True, slots=True)
class Operation:
    """One tool call.

    Attributes:
        client: the actor that called, unique over all projects.
        project: its project.
        tool, arguments: the call.
        mark: a text that no other operation carries, found again in the state; a retry with the same idempotency key
            has the mark of its first attempt.
        invoked_at, completed_at: monotonic seconds of this machine.
        result: the structured result if the outcome is OK, else empty.
    """

    client: str
    project: str
    tool: str
    arguments: dict[str, Any]
    mark: str
    invoked_at: float
    completed_at: float
    outcome: Outcome
    result: dict[str, Any] = field(default_factory=dict)


class Recorder:
    """Collects the operations of all clients; safe for threads."""

    def __init__(self) -> None:
        self._operations: list[Operation] = []
        self._lock = threading.Lock()
        self._mark_numbers = itertools.count(1)

    def new_mark(self, project: str) -> str:
        """A text that no other operation carries; it begins with the project, so that a leak shows."""
        return f"{project}:{next(self._mark_numbers)}:"

    def add(self, operation: Operation) -> None:
        """Record a completed operation."""
        with self._lock:
            self._operations.append(operation)

    def __len__(self) -> int:
        return len(self._operations)

    def operations(self) -> list[Operation]:
        """All operations in the order of their invocation."""
        with self._lock:
            return sorted(self._operations, key=lambda operation: operation.invoked_at)


def now() -> float:
    """The clock of the histories."""
    return time.monotonic()
