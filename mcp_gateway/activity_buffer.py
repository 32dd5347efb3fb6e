"""Who was here and what it was shown, coalesced: every call says so, and the database hears of it in batches."""

import time
from collections.abc import Sequence
from threading import Lock

from bus.coordination import posts, presence
from bus.ctx import Ctx
from bus.db import Database
from bus.tenancy import tokens

FLUSH_INTERVAL_SECONDS = 1.5
_BATCH_SIZE = 1_000


class ActivityBuffer:
    """Who called since the last flush. Times are this host's monotonic clock and leave it as ages only."""

    def __init__(self) -> None:
        self._seen_participations: dict[int, float] = {}
        self._used_token_ids: set[int] = set()
        self._shown_posts: dict[tuple[int, int, int], float] = {}
        self._lock = Lock()

    def record_activity(self, ctx: Ctx) -> None:
        """Remember that the caller was just seen."""
        with self._lock:
            self._seen_participations[ctx.participation_id] = time.monotonic()
            if ctx.token_id is not None:
                self._used_token_ids.add(ctx.token_id)

    def record_shown_posts(self, ctx: Ctx, post_ids: Sequence[int]) -> None:
        """Remember that these posts were just shown to their recipient."""
        now = time.monotonic()
        with self._lock:
            for post_id in post_ids:
                self._shown_posts.setdefault((ctx.project_id, ctx.participation_id, post_id), now)

    def flush(self, db: Database) -> None:
        """Write what was noted; what cannot be written is noted again for the next time."""
        with self._lock:
            participations, self._seen_participations = self._seen_participations, {}
            token_ids, self._used_token_ids = self._used_token_ids, set()
            shown, self._shown_posts = self._shown_posts, {}
        try:
            now = time.monotonic()
            ids = sorted(participations)
            for start in range(0, len(ids), _BATCH_SIZE):
                batch = ids[start : start + _BATCH_SIZE]
                with db.connection() as conn:
                    presence.record_seen(conn, {one: now - participations[one] for one in batch})
            if token_ids:
                with db.connection() as conn:
                    tokens.record_use(conn, sorted(token_ids))
            keys = sorted(shown)
            for start in range(0, len(keys), _BATCH_SIZE):
                now = time.monotonic()
                with db.connection() as conn:
                    posts.mark_surfaced(conn, {key: now - shown[key] for key in keys[start : start + _BATCH_SIZE]})
        except Exception:
            with self._lock:
                for one, at in participations.items():
                    self._seen_participations.setdefault(one, at)
                self._used_token_ids |= token_ids
                self._shown_posts = shown | self._shown_posts
            raise
