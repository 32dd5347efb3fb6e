"""Whether an answer reached its client, for answers that take something: a task, a turn, a move of a cursor.

A client that departs leaves no word. The server reports whether the part of the response that holds the answer was
written and the connection was not reset afterwards (mcp_gateway/http_protocol.py), and what an undelivered answer took
is given back. See docs/decisions/0037-undelivered-answers.md.
"""

from collections.abc import Callable

# The server's ASGI extension: a function that calls back once, with whether the next part of the body was delivered.
DELIVERY_EXTENSION = "llm_bus.delivery"


class Delivery:
    """The delivery of one answer. The first report counts.

    Args:
        give_back: called if the answer was not delivered.
    """

    __slots__ = ("_give_back", "_is_settled")

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back = give_back
        self._is_settled = False

    def settle(self, is_delivered: bool) -> None:
        """Report whether the answer was delivered."""
        if not self._is_settled:
            self._is_settled = True
            if not is_delivered:
                self._give_back()
