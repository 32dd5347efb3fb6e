"""Denials: requests that are answered with an HTTP status instead of a protocol message."""

from typing import Final

from bus import scopes
from bus.errors import InsufficientScope, NotAuthenticated, OwnerSuspended, Unavailable
from bus.scopes import Scope
from mcp_gateway.subscriptions import ConcurrencyLimitExceeded

_STATUS_AND_OUTCOME: Final[dict[type[Exception], tuple[int, str]]] = {
    NotAuthenticated: (401, "unauthenticated"),
    OwnerSuspended: (403, "suspended"),
    InsufficientScope: (403, "insufficient_scope"),
    ConcurrencyLimitExceeded: (429, "too_many"),
    Unavailable: (503, "unavailable"),
}
DENIAL_MESSAGES: Final = {
    401: "Not authenticated",
    403: "Suspended",
    429: "Too many requests",
    499: "The client has disconnected",
    503: "Unavailable",
}
# The exceptions that `RequestDenied.from_error` accepts.
DENYING_ERRORS: Final = tuple(_STATUS_AND_OUTCOME)


class RequestDenied(Exception):
    """The request is answered with an HTTP status instead of a protocol message.

    Attributes:
        status: the HTTP status.
        outcome: its label in the metrics.
        needed_scope: what a token would have to allow; None if another token would not help.
    """

    def __init__(self, status: int, outcome: str, needed_scope: Scope | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.outcome = outcome
        self.needed_scope = needed_scope

    @property
    def message(self) -> str:
        """A sentence for the protocol message that the answer replaces, where it must be sent nevertheless."""
        if self.needed_scope is not None:
            return f"Insufficient scope: {advise_scope(self.needed_scope)}"
        return DENIAL_MESSAGES[self.status]

    @classmethod
    def from_error(cls, error: Exception) -> "RequestDenied":
        """Return the denial for one of DENYING_ERRORS."""
        status, outcome = next(values for kind, values in _STATUS_AND_OUTCOME.items() if isinstance(error, kind))
        return cls(status, outcome, error.needed if isinstance(error, InsufficientScope) else None)


def advise_scope(needed: Scope) -> str:
    """Return what to do about a token whose scope is too narrow."""
    return (
        f"this call needs a token with the scope {scopes.to_oauth_list(needed)[-1]}; sign in again to be asked for it,"
        " or ask the owner for another token."
    )
