"""Denials: requests that are answered with an HTTP status instead of a protocol message."""

from typing import Final

from bus.errors import NotAuthenticated, OwnerSuspended, Unavailable
from mcp_gateway.subscriptions import ConcurrencyLimitExceeded

_STATUS_AND_OUTCOME: Final[dict[type[Exception], tuple[int, str]]] = {
    NotAuthenticated: (401, "unauthenticated"),
    OwnerSuspended: (403, "suspended"),
    ConcurrencyLimitExceeded: (429, "too_many"),
    Unavailable: (503, "unavailable"),
}
# The exceptions that `RequestDenied.from_error` accepts.
DENYING_ERRORS: Final = tuple(_STATUS_AND_OUTCOME)


class RequestDenied(Exception):
    """The request is answered with an HTTP status instead of a protocol message.

    Attributes:
        status: the HTTP status.
        outcome: its label in the metrics.
    """

    def __init__(self, status: int, outcome: str) -> None:
        super().__init__(status)
        self.status = status
        self.outcome = outcome

    @classmethod
    def from_error(cls, error: Exception) -> "RequestDenied":
        """Return the denial for one of DENYING_ERRORS."""
        return cls(*next(values for kind, values in _STATUS_AND_OUTCOME.items() if isinstance(error, kind)))
