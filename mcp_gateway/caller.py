"""Resolution of the Authorization header to the immutable facts about its token."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

from bus.ctx import Ctx
from bus.db import Connection
from bus.rules.token_format import (
    access_token_fingerprint,
    fingerprint,
    is_legacy_token,
    is_well_formed_access_token,
    is_well_formed_token,
)
from bus.tenancy import tokens
from mcp_gateway.delivery import Delivery
from mcp_gateway.denials import RequestDenied

_SCHEME = "bearer "


@dataclass(slots=True)
class Caller:
    """The caller of one HTTP request.

    Attributes:
        ctx: None if there is no token (stdio without a token): tools are listed and calls are refused.
        denied: what replaces the protocol's answer; None unless the call was denied.
        watch_delivery: the server's extension that reports whether the next part of the body was delivered; None where
            the server has none.
        delivery: gives back what the answer took if it is not delivered; None if it took nothing.
    """

    ctx: Ctx | None
    denied: RequestDenied | None = field(default=None)
    watch_delivery: Callable[[Callable[[bool], None]], None] | None = field(default=None)
    delivery: Delivery | None = field(default=None)

    def track(self, delivery: Delivery) -> None:
        """Give back what the answer took, unless the next part of the body is delivered."""
        self.delivery = delivery
        if self.watch_delivery is not None:
            self.watch_delivery(delivery.settle)


def bearer_token_fingerprint(header: str, resource: str | None = None) -> bytes | None:
    """Return the fingerprint of the token in an Authorization header; None without a well-formed token.

    Args:
        resource: the resource for which access tokens must have been issued; None if none are accepted.
    """
    if header[: len(_SCHEME)].lower() != _SCHEME:
        return None
    token = header[len(_SCHEME) :].strip()
    if is_well_formed_token(token) or is_legacy_token(token):
        return fingerprint(token)
    if resource is not None and is_well_formed_access_token(token):
        return access_token_fingerprint(token, resource)
    return None


class CallerCache:
    """Cache of the facts about tokens. It holds only immutable facts, so entries are never invalidated."""

    def __init__(self, max_size: int = 20_000) -> None:
        self._max_size = max_size
        self._ctx_by_fingerprint: OrderedDict[bytes, Ctx] = OrderedDict()
        self._lock = Lock()

    def find_cached(self, token_fingerprint: bytes) -> Ctx | None:
        """Return the facts about a token if they are cached."""
        with self._lock:
            ctx = self._ctx_by_fingerprint.get(token_fingerprint)
            if ctx is not None:
                self._ctx_by_fingerprint.move_to_end(token_fingerprint)
        return ctx

    def find_and_cache(self, conn: Connection, token_fingerprint: bytes) -> Ctx | None:
        """Read the facts about a token from the database and cache them; None if the token was never minted."""
        ctx = tokens.find_caller(conn, token_fingerprint)
        if ctx is not None:
            with self._lock:
                self._ctx_by_fingerprint[token_fingerprint] = ctx
                if len(self._ctx_by_fingerprint) > self._max_size:
                    self._ctx_by_fingerprint.popitem(last=False)
        return ctx
