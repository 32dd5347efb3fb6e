"""Whether the client of a request is still connected, for calls that have not begun."""

from collections.abc import Callable
from contextvars import ContextVar


def _never() -> bool:
    return False


is_client_gone: ContextVar[Callable[[], bool]] = ContextVar("is_client_gone", default=_never)
"""Returns whether the client of the present request has disconnected; may be called in any thread."""
