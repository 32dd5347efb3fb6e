"""Rate limit per token, shared by all processes through Redis.

Each process decides alone and publishes once a second how many calls it admitted. A token that spreads its calls over
processes therefore gets at most one burst in each and then its rate; without Redis it gets its rate in each process.
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
    """A token bucket per bearer token; idle buckets are dropped when they are full again.

    Args:
        per_minute: calls per minute and token; 0 turns the limit off.
        redis_url: where the processes share their counts; None limits each process alone.
    """

    def __init__(self, per_minute: int, redis_url: str | None = None) -> None:
        self._rate_per_second = per_minute / 60
        self._burst = max(1.0, self._rate_per_second * _BURST_SECONDS)
        self._redis_url = redis_url
        self._buckets: dict[int | None, tuple[float, float]] = {}
        self._unshared_counts: Counter[int | None] = Counter()
        # The calls that all processes together had admitted at the last exchange.
        self._shared_totals: dict[int | None, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start sharing counts, if there is a limit and Redis is configured."""
        if self._rate_per_second and self._redis_url is not None:
            self._task = asyncio.create_task(self._share_loop(self._redis_url))

    async def stop(self) -> None:
        """Stop sharing counts."""
        if self._task is not None:
            self._task.cancel()
            # Bounded: a client library that swallows a cancellation must not keep the process alive.
            await asyncio.wait([self._task], timeout=_STOP_TIMEOUT_SECONDS)

    def allow(self, ctx: Ctx) -> bool:
        """Count one call and return whether it is within the limit."""
        if self._rate_per_second == 0:
            return True
        now = time.monotonic()
        available = self._available_tokens(ctx.token_id, now)
        is_admitted = available >= 1
        self._buckets[ctx.token_id] = (available - 1 if is_admitted else available, now)
        if is_admitted and self._task is not None:
            self._unshared_counts[ctx.token_id] += 1
        if len(self._buckets) > _MAX_BUCKETS:
            self._drop_full_buckets(now)
        return is_admitted

    def _available_tokens(self, token_id: int | None, now: float) -> float:
        available, updated_at = self._buckets.get(token_id, (self._burst, now))
        return min(self._burst, available + (now - updated_at) * self._rate_per_second)

    def _drop_full_buckets(self, now: float) -> None:
        seconds_to_fill = self._burst / self._rate_per_second
        self._buckets = {
            token_id: bucket for token_id, bucket in self._buckets.items() if now - bucket[1] < seconds_to_fill
        }
        self._shared_totals = {
            token_id: total for token_id, total in self._shared_totals.items() if token_id in self._buckets
        }

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
                    # While Redis is unavailable each process applies the limit alone.
                    self._shared_totals.clear()

    async def _share(self, client: Redis, counts: Counter[int | None]) -> None:
        # The time that a bucket takes to fill from its lowest level.
        expire_seconds = round(2 * self._burst / self._rate_per_second) + 1
        async with client.pipeline(transaction=False) as pipeline:
            for token_id, count in counts.items():
                pipeline.incrby(f"llm-bus:calls:{token_id}", count)
                pipeline.expire(f"llm-bus:calls:{token_id}", expire_seconds)
            replies = await pipeline.execute()
        now = time.monotonic()
        for (token_id, count), total in zip(counts.items(), replies[::2], strict=True):
            previous_total = self._shared_totals.get(token_id)
            self._shared_totals[token_id] = total
            if previous_total is not None and total - previous_total > count:
                admitted_elsewhere = total - previous_total - count
                available = self._available_tokens(token_id, now) - admitted_elsewhere
                self._buckets[token_id] = (max(available, -self._burst), now)
