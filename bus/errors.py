"""Typed errors of the engine; each process maps them once to its own format."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from bus.scopes import Scope

ErrorCode = Literal[
    "invalid_argument",
    "not_found",
    "unknown_recipient",
    "conflict",
    "wrong_state",
    "forbidden",
    "key_reuse",
    "unavailable",
]
# Next step for the caller. A process that has a tool or a command for it adds the sentence
# (mcp_gateway/error_hints.py, cli/main.py).
Hint = Literal[
    "assign_task",
    "list_owners",
    "list_participants",
    "list_projects",
    "list_tasks",
    "read_posts",
    "resolve_task",
    "rotate_token",
    "ship_task",
    "start_task",
    "take_next_task",
]
ERROR_CODES: frozenset[str] = frozenset(get_args(ErrorCode))
ERROR_MEANINGS: Mapping[ErrorCode, str] = {
    "invalid_argument": "an argument is missing, malformed, too long or unknown; the message says what to send instead",
    "not_found": "there is no such post, task, lease or other object in the caller's project",
    "unknown_recipient": "no participant of the project has that name; `near` has similar names",
    "conflict": "it contradicts what is there: a name is taken, a sequence would go back, blockers form a circle",
    "wrong_state": "the present state does not permit it; `status` has the state",
    "forbidden": "the caller may not do that, or the project is archived",
    "key_reuse": "the idempotency key was used with other arguments",
    "unavailable": "the service cannot answer now; nothing was changed, and the same call may succeed in seconds",
}


class BusError(Exception):
    """An error that the caller can act on.

    Attributes:
        code: one of ERROR_CODES; stable, for programs.
        message: plain sentences that state what to do next, for people and language models.
        hint: a next step for which processes have a tool or a command; None if the message is complete.
        data: JSON-serialisable facts that belong to the code (near names, the current status).
    """

    def __init__(self, code: ErrorCode, message: str, *, hint: Hint | None = None, **data: Any) -> None:
        super().__init__(message)
        self.code: ErrorCode = code
        self.message = message
        self.hint = hint
        self.data = data


class NotFound(BusError):
    """The object does not exist, or belongs to another owner or project; both give the same answer."""

    def __init__(self, noun: str) -> None:
        super().__init__("not_found", f"There is no such {noun}.")


class InvalidArgument(BusError):
    """An argument is malformed, out of range or contains forbidden characters."""

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__("invalid_argument", message, **data)


class Unavailable(BusError):
    """The service cannot answer now (database away, too busy); the same call may succeed in seconds."""

    def __init__(self, message: str) -> None:
        super().__init__("unavailable", message)


class LockNotGranted(Unavailable):
    """Another transaction held a lock for too long. Nothing was changed, so the call may be made again."""


class NotAuthenticated(Exception):
    """The token is unknown, malformed, revoked or expired, or its participation has ended."""


class OwnerSuspended(Exception):
    """The token or session is valid, but its owner is suspended, and the act would cost or grant something."""


class InsufficientScope(Exception):
    """The token is valid, and the call needs a wider scope than it has.

    Attributes:
        needed: that scope.
    """

    def __init__(self, needed: Scope) -> None:
        super().__init__(needed)
        self.needed: Scope = needed
