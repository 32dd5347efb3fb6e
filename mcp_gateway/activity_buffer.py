"""Who was here and what it was shown, coalesced: every call says so, and the database hears of it in batches."""

import time
from collections.abc import Sequence
from threading import Lock

from bus.coordination import posts, presence
from bus.ctx import Ctx
from bus.db import Database
from bus.tenancy import tokens

FLUSH_SECONDS = 1.5
_BATCH = 1_000


class Seen:
    """Who called since the last flush. Times are this host's monotonic clock and leave it as ages only."""

    def __init__(self) -> None:
        self._participations: dict[int, float] = {}
        self._tokens: set[int] = set()
        self._shown: dict[tuple[int, int, int], float] = {}
        self._lock = Lock()

    def note(self, ctx: Ctx) -> None:
        """Remember that the caller was just seen."""
        with self._lock:
            self._participations[ctx.participation_id] = time.monotonic()
            if ctx.token_id is not None:
                self._tokens.add(ctx.token_id)

    def show(self, ctx: Ctx, post_ids: Sequence[int]) -> None:
        """Remember that these posts were just shown to their recipient."""
        now = time.monotonic()
        with self._lock:
            for post_id in post_ids:
                self._shown.setdefault((ctx.project_id, ctx.participation_id, post_id), now)

    def flush(self, db: Database) -> None:
        """Write what was noted; what cannot be written is noted again for the next time."""
        with self._lock:
            participations, self._participations = self._participations, {}
            token_ids, self._tokens = self._tokens, set()
            shown, self._shown = self._shown, {}
        try:
            now = time.monotonic()
            ids = sorted(participations)
            for start in range(0, len(ids), _BATCH):
                batch = ids[start : start + _BATCH]
                with db.call() as conn:
                    presence.touch(conn, {one: now - participations[one] for one in batch})
            if token_ids:
                with db.call() as conn:
                    tokens.touch(conn, sorted(token_ids))
            keys = sorted(shown)
            for start in range(0, len(keys), _BATCH):
                now = time.monotonic()
                with db.call() as conn:
                    posts.surface(conn, {key: now - shown[key] for key in keys[start : start + _BATCH]})
        except Exception:
            with self._lock:
                for one, at in participations.items():
                    self._participations.setdefault(one, at)
                self._tokens |= token_ids
                self._shown = shown | self._shown
            raise
