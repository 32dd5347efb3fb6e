"""Who is calling: from the Authorization header to the immutable facts behind a token."""

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock

from bus.ctx import Ctx
from bus.db import Connection
from bus.rules.token_format import fingerprint, is_well_formed
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
    denied: int | None = field(default=None)


def bearer_key(header: str) -> bytes | None:
    """The fingerprint of the token in an Authorization header, or None if it carries none that could be ours."""
    if header[: len(_SCHEME)].lower() != _SCHEME:
        return None
    token = header[len(_SCHEME) :].strip()
    return fingerprint(token) if is_well_formed(token) else None


class Callers:
    """Remembers what tokens resolve to. Only what can never change is kept, so nothing is ever invalidated."""

    def __init__(self, size: int = 20_000) -> None:
        self._size = size
        self._known: OrderedDict[bytes, Ctx] = OrderedDict()
        self._lock = Lock()

    def find_cached(self, key: bytes) -> Ctx | None:
        """The facts behind a token, by its fingerprint, if this process has met it."""
        with self._lock:
            ctx = self._known.get(key)
            if ctx is not None:
                self._known.move_to_end(key)
        return ctx

    def find(self, conn: Connection, key: bytes) -> Ctx | None:
        """The facts behind a token, by its fingerprint, or None if it was never minted."""
        ctx = tokens.resolve(conn, key)
        if ctx is not None:
            with self._lock:
                self._known[key] = ctx
                if len(self._known) > self._size:
                    self._known.popitem(last=False)
        return ctx
