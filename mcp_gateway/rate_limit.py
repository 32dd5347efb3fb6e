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
_SHARE_SECONDS = 1.0
_STOP_SECONDS = 2.0
_MOST_BUCKETS = 10_000


class RateLimit:
    """A token bucket per bearer token; off at 0. Idle buckets are forgotten when they are full again."""

    def __init__(self, per_minute: int, redis_url: str | None = None) -> None:
        self._rate = per_minute / 60
        self._burst = max(1.0, self._rate * _BURST_SECONDS)
        self._url = redis_url
        self._buckets: dict[int | None, tuple[float, float]] = {}
        self._admitted: Counter[int | None] = Counter()
        # What all processes together had admitted when this one last asked.
        self._totals: dict[int | None, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to share, where there is something to share and a place for it."""
        if self._rate and self._url is not None:
            self._task = asyncio.create_task(self._share_for_ever(self._url))

    async def stop(self) -> None:
        """End what `start` began."""
        if self._task is not None:
            self._task.cancel()
            # Not for ever: a client library that swallows a cancellation must not keep the process.
            await asyncio.wait([self._task], timeout=_STOP_SECONDS)

    def admit(self, ctx: Ctx) -> bool:
        """Count one call; whether it may go on."""
        if self._rate == 0:
            return True
        now = time.monotonic()
        left = self._left(ctx.token_id, now)
        admitted = left >= 1
        self._buckets[ctx.token_id] = (left - 1 if admitted else left, now)
        if admitted and self._task is not None:
            self._admitted[ctx.token_id] += 1
        if len(self._buckets) > _MOST_BUCKETS:
            self._forget(now)
        return admitted

    def _left(self, token: int | None, now: float) -> float:
        left, at = self._buckets.get(token, (self._burst, now))
        return min(self._burst, left + (now - at) * self._rate)

    def _forget(self, now: float) -> None:
        full_after = self._burst / self._rate
        self._buckets = {key: value for key, value in self._buckets.items() if now - value[1] < full_after}
        self._totals = {key: value for key, value in self._totals.items() if key in self._buckets}

    async def _share_for_ever(self, url: str) -> None:
        async with Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2) as client:
            while True:
                await asyncio.sleep(_SHARE_SECONDS)
                if not self._admitted:
                    continue
                admitted, self._admitted = self._admitted, Counter()
                try:
                    await self._share(client, admitted)
                except (RedisError, OSError):
                    # Redis is away: until it returns each process counts for itself.
                    self._totals.clear()

    async def _share(self, client: Redis, admitted: Counter[int | None]) -> None:
        # As long as a bucket takes to fill from its lowest.
        seconds = round(2 * self._burst / self._rate) + 1
        async with client.pipeline(transaction=False) as pipeline:
            for token, count in admitted.items():
                pipeline.incrby(f"llm-bus:calls:{token}", count)
                pipeline.expire(f"llm-bus:calls:{token}", seconds)
            answers = await pipeline.execute()
        now = time.monotonic()
        for (token, count), total in zip(admitted.items(), answers[::2], strict=True):
            before = self._totals.get(token)
            self._totals[token] = total
            if before is not None and total - before > count:
                others = total - before - count
                self._buckets[token] = (max(self._left(token, now) - others, -self._burst), now)
