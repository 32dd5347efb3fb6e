"""The errors of the bus, typed once and mapped once per door."""

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
ERROR_CODES: frozenset[str] = frozenset(get_args(ErrorCode))


class BusError(Exception):
    """A refusal that the caller can act on.

    Attributes:
        code: one of CODES; stable, for programs.
        message: one plain sentence that says what to do next; for people and language models.
        data: JSON-serialisable facts that belong to the code (near names, the present status).
    """

    def __init__(self, code: ErrorCode, message: str, **data: Any) -> None:
        super().__init__(message)
        self.code: ErrorCode = code
        self.message = message
        self.data = data


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
