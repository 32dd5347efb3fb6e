"""Buffer for presence, token use and surfaced posts: calls record them in memory, and flushes write them in batches."""

import time
from collections.abc import Sequence
from threading import Lock

from bus.coordination import presence, sessions, surfacing
from bus.ctx import Ctx
from bus.db import Database
from bus.tenancy import tokens

FLUSH_INTERVAL_SECONDS = 1.5
_BATCH_SIZE = 1_000


class ActivityBuffer:
    """Activity since the last flush. Times are of this host's monotonic clock and reach the database only as ages."""

    def __init__(self) -> None:
        self._seen_participations: dict[int, float] = {}
        self._clients: dict[int, str] = {}
        self._used_token_ids: set[int] = set()
        # When, and to which session, calls showed a post: what one session did not receive, another one may have.
        self._shown_posts: dict[tuple[int, int, int], list[tuple[float, str | None]]] = {}
        # With the token of the last call.
        self._seen_sessions: dict[tuple[int, str], tuple[float, int | None]] = {}
        self._lock = Lock()

    def record_activity(self, ctx: Ctx) -> None:
        """Record that the caller was seen now."""
        now = time.monotonic()
        with self._lock:
            self._seen_participations[ctx.participation_id] = now
            if ctx.client is not None:
                self._clients[ctx.participation_id] = ctx.client
            if ctx.session is not None:
                self._seen_sessions[ctx.participation_id, ctx.session] = now, ctx.token_id
            if ctx.token_id is not None:
                self._used_token_ids.add(ctx.token_id)

    def record_shown_posts(self, ctx: Ctx, post_ids: Sequence[int]) -> None:
        """Record that these posts were shown to their recipient now."""
        now = time.monotonic()
        with self._lock:
            for post_id in post_ids:
                key = ctx.project_id, ctx.participation_id, post_id
                self._shown_posts.setdefault(key, []).append((now, ctx.session))

    def forget_shown_posts(self, ctx: Ctx, post_ids: Sequence[int]) -> None:
        """Drop what a call recorded of posts that were not shown after all, unless it was written already."""
        with self._lock:
            for post_id in post_ids:
                key = ctx.project_id, ctx.participation_id, post_id
                showings = self._shown_posts.get(key, [])
                # Of several calls of a session, the one that showed it last.
                newest = next((i for i in reversed(range(len(showings))) if showings[i][1] == ctx.session), None)
                if newest is not None:
                    del showings[newest]
                    if not showings:
                        del self._shown_posts[key]

    def flush(self, db: Database) -> None:
        """Write the buffered activity; if that fails, keep it for the next flush."""
        with self._lock:
            participations, self._seen_participations = self._seen_participations, {}
            clients, self._clients = self._clients, {}
            token_ids, self._used_token_ids = self._used_token_ids, set()
            shown, self._shown_posts = self._shown_posts, {}
            seen_sessions, self._seen_sessions = self._seen_sessions, {}
        try:
            now = time.monotonic()
            ids = sorted(participations)
            for start in range(0, len(ids), _BATCH_SIZE):
                batch = ids[start : start + _BATCH_SIZE]
                with db.connection() as conn:
                    presence.record_seen(conn, {id_: now - participations[id_] for id_ in batch}, clients)
            session_ids = sorted(seen_sessions)
            for start in range(0, len(session_ids), _BATCH_SIZE):
                ages = {
                    id_: (now - seen_sessions[id_][0], seen_sessions[id_][1])
                    for id_ in session_ids[start : start + _BATCH_SIZE]
                }
                with db.connection() as conn:
                    sessions.record_seen(conn, ages)
            session_posts = sorted(
                {
                    (project_id, participation_id, session, post_id)
                    for (project_id, participation_id, post_id), showings in shown.items()
                    for _, session in showings
                    if session is not None
                }
            )
            for start in range(0, len(session_posts), _BATCH_SIZE):
                with db.connection() as conn:
                    sessions.record_shown(conn, session_posts[start : start + _BATCH_SIZE])
            if token_ids:
                with db.connection() as conn:
                    tokens.record_use(conn, sorted(token_ids))
            keys = sorted(shown)
            for start in range(0, len(keys), _BATCH_SIZE):
                now = time.monotonic()
                with db.connection() as conn:
                    surfacing.mark_surfaced(
                        conn, {key: now - shown[key][0][0] for key in keys[start : start + _BATCH_SIZE]}
                    )
        except Exception:
            with self._lock:
                for participation_id, seen_at in participations.items():
                    self._seen_participations.setdefault(participation_id, seen_at)
                self._clients = clients | self._clients
                self._used_token_ids |= token_ids
                for key, showings in shown.items():
                    self._shown_posts[key] = showings + self._shown_posts.get(key, [])
                self._seen_sessions = seen_sessions | self._seen_sessions
            raise
