"""Typed errors of the engine. Each process maps them once to its own form."""

from typing import Any, Literal, get_args

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
# What the caller may do next. A process that has a tool or a command for it adds the sentence
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


class BusError(Exception):
    """A refusal that the caller can act on.

    Attributes:
        code: one of ERROR_CODES; stable, for programs.
        message: one plain sentence that says what to do next, for people and language models.
        hint: a next step that has a tool or a command; None where the message says it all.
        data: JSON-serialisable facts that belong to the code (near names, the present status).
    """

    def __init__(self, code: ErrorCode, message: str, *, hint: Hint | None = None, **data: Any) -> None:
        super().__init__(message)
        self.code: ErrorCode = code
        self.message = message
        self.hint = hint
        self.data = data


class NotFound(BusError):
    """There is no such object, or it belongs to another owner or project; both answer alike."""

    def __init__(self, noun: str) -> None:
        super().__init__("not_found", f"There is no such {noun}.")


class InvalidArgument(BusError):
    """An argument is malformed, out of range or carries characters that are refused."""

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__("invalid_argument", message, **data)


class Unavailable(BusError):
    """The bus cannot answer at this moment (database away, too busy); the same call may work in seconds."""

    def __init__(self, message: str) -> None:
        super().__init__("unavailable", message)


class NotAuthenticated(Exception):
    """The token is unknown, malformed, revoked or expired, or its grant is gone: nobody is calling."""


class OwnerSuspended(Exception):
    """The token is good, but its owner is suspended."""
