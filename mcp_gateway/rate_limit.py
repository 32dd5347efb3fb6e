"""How many calls one token may make, counted together by all processes as far as Redis lets them.

Each process decides by itself, without asking anybody, and tells the others once a second how much it admitted. So a
token that spreads its calls over processes gets at most one burst in each and then its rate; without Redis it gets
its rate in each.
"""

import asyncio
import time
from collections import Counter

from redis.asyncio import Redis
from redis.exceptions import RedisError

from bus.ctx import Ctx

_BURST_SECONDS = 10
_SHARE_INTERVAL_SECONDS = 1.0
_STOP_TIMEOUT_SECONDS = 2.0
_MAX_BUCKETS = 10_000


class RateLimit:
    """A token bucket per bearer token; off at 0. Idle buckets are forgotten when they are full again."""

    def __init__(self, per_minute: int, redis_url: str | None = None) -> None:
        self._rate_per_second = per_minute / 60
        self._burst = max(1.0, self._rate_per_second * _BURST_SECONDS)
        self._redis_url = redis_url
        self._buckets: dict[int | None, tuple[float, float]] = {}
        self._unshared_counts: Counter[int | None] = Counter()
        # What all processes together had admitted when this one last asked.
        self._shared_totals: dict[int | None, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to share, where there is something to share and a place for it."""
        if self._rate_per_second and self._redis_url is not None:
            self._task = asyncio.create_task(self._share_loop(self._redis_url))

    async def stop(self) -> None:
        """End what `start` began."""
        if self._task is not None:
            self._task.cancel()
            # Not for ever: a client library that swallows a cancellation must not keep the process.
            await asyncio.wait([self._task], timeout=_STOP_TIMEOUT_SECONDS)

    def allow(self, ctx: Ctx) -> bool:
        """Count one call; whether it may go on."""
        if self._rate_per_second == 0:
            return True
        now = time.monotonic()
        left = self._available_tokens(ctx.token_id, now)
        admitted = left >= 1
        self._buckets[ctx.token_id] = (left - 1 if admitted else left, now)
        if admitted and self._task is not None:
            self._unshared_counts[ctx.token_id] += 1
        if len(self._buckets) > _MAX_BUCKETS:
            self._drop_full_buckets(now)
        return admitted

    def _available_tokens(self, token_id: int | None, now: float) -> float:
        left, at = self._buckets.get(token_id, (self._burst, now))
        return min(self._burst, left + (now - at) * self._rate_per_second)

    def _drop_full_buckets(self, now: float) -> None:
        full_after = self._burst / self._rate_per_second
        self._buckets = {key: value for key, value in self._buckets.items() if now - value[1] < full_after}
        self._shared_totals = {key: value for key, value in self._shared_totals.items() if key in self._buckets}

    async def _share_loop(self, redis_url: str) -> None:
        async with Redis.from_url(redis_url, socket_connect_timeout=2, socket_timeout=2) as client:
            while True:
                await asyncio.sleep(_SHARE_INTERVAL_SECONDS)
                if not self._unshared_counts:
                    continue
                admitted, self._unshared_counts = self._unshared_counts, Counter()
                try:
                    await self._share(client, admitted)
                except (RedisError, OSError):
                    # Redis is away: until it returns each process counts for itself.
                    self._shared_totals.clear()

    async def _share(self, client: Redis, counts: Counter[int | None]) -> None:
        # As long as a bucket takes to fill from its lowest.
        seconds = round(2 * self._burst / self._rate_per_second) + 1
        async with client.pipeline(transaction=False) as pipeline:
            for token, count in counts.items():
                pipeline.incrby(f"llm-bus:calls:{token}", count)
                pipeline.expire(f"llm-bus:calls:{token}", seconds)
            answers = await pipeline.execute()
        now = time.monotonic()
        for (token, count), total in zip(counts.items(), answers[::2], strict=True):
            before = self._shared_totals.get(token)
            self._shared_totals[token] = total
            if before is not None and total - before > count:
                others = total - before - count
                self._buckets[token] = (max(self._available_tokens(token, now) - others, -self._burst), now)
