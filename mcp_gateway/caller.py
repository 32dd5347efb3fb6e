"""Who is calling: from the Authorization header to the immutable facts behind a token."""

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock

from bus.ctx import Ctx
from bus.db import Connection
from bus.rules.token_format import fingerprint, is_well_formed_token
from bus.tenancy import tokens

_SCHEME = "bearer "


@dataclass(slots=True)
class Caller:
    """The caller of one HTTP request, and what became of its right to call.

    Attributes:
        ctx: None where no token was given (stdio without a token): tools are listed, calls are refused.
        denied: the HTTP status that must replace whatever the protocol answered, once it is known.
    """

    ctx: Ctx | None
    denied_status: int | None = field(default=None)


def bearer_token_fingerprint(header: str) -> bytes | None:
    """The fingerprint of the token in an Authorization header, or None if it carries none that could be ours."""
    if header[: len(_SCHEME)].lower() != _SCHEME:
        return None
    token = header[len(_SCHEME) :].strip()
    return fingerprint(token) if is_well_formed_token(token) else None


class CallerCache:
    """Remembers what tokens resolve to. Only what can never change is kept, so nothing is ever invalidated."""

    def __init__(self, max_size: int = 20_000) -> None:
        self._max_size = max_size
        self._ctx_by_fingerprint: OrderedDict[bytes, Ctx] = OrderedDict()
        self._lock = Lock()

    def find_cached(self, token_fingerprint: bytes) -> Ctx | None:
        """The facts behind a token, by its fingerprint, if this process has met it."""
        with self._lock:
            ctx = self._ctx_by_fingerprint.get(token_fingerprint)
            if ctx is not None:
                self._ctx_by_fingerprint.move_to_end(token_fingerprint)
        return ctx

    def find_and_cache(self, conn: Connection, token_fingerprint: bytes) -> Ctx | None:
        """The facts behind a token, by its fingerprint, or None if it was never minted."""
        ctx = tokens.find_caller(conn, token_fingerprint)
        if ctx is not None:
            with self._lock:
                self._ctx_by_fingerprint[token_fingerprint] = ctx
                if len(self._ctx_by_fingerprint) > self._max_size:
                    self._ctx_by_fingerprint.popitem(last=False)
        return ctx
