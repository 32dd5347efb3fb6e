"""How many calls and streams one token keeps open in other processes, so that its limit holds for all together.

Each process decides by itself, without asking anybody, and tells the others once a second what its largest holders
hold. So a token may go past its limit by what it opens within a second; without Redis the limit holds in each process.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

_SHARE_INTERVAL_SECONDS = 1.0
# Who was not heard of for as long is gone, and holds nothing.
_EXPIRE_SECONDS = 5
_STOP_TIMEOUT_SECONDS = 2.0
# Who holds less than this part of its limit is not worth telling of.
_PUBLISHED_FRACTION_DIVISOR = 16
_PROCESSES_KEY = "llm-bus:holders"
_COUNTS_KEY_PREFIX = "llm-bus:held:"

IterateCounts = Callable[[], Iterator[tuple[int | None, int]]]


class SharedConcurrencyCounts:
    """Tells other processes what tokens hold here, and knows what they hold there. Runs on the event loop."""

    def __init__(self, redis_url: str | None) -> None:
        self._redis_url = redis_url
        self._process_id = secrets.token_hex(8)
        self._local_counts: dict[str, tuple[int, IterateCounts]] = {}
        self._remote_counts: dict[str, int] = {}
        self._is_published = False
        self._task: asyncio.Task[None] | None = None

    def register(self, kind: str, limit: int, iterate_counts: IterateCounts) -> Callable[[int | None], int]:
        """Share what is held of a kind; returns how much of it a token holds in other processes.

        Args:
            most: how many one token may hold.
            holders: each token with how many it holds here.
        """
        self._local_counts[kind] = (limit, iterate_counts)
        return lambda token: self._remote_counts.get(f"{kind}:{token}", 0)

    def start(self) -> None:
        """Begin to share, where there is a place for it."""
        if self._redis_url is not None:
            self._task = asyncio.create_task(self._share_loop(self._redis_url))

    async def stop(self) -> None:
        """End what `start` began."""
        if self._task is not None:
            self._task.cancel()
            # Not for ever: a client library that swallows a cancellation must not keep the process.
            await asyncio.wait([self._task], timeout=_STOP_TIMEOUT_SECONDS)

    async def _share_loop(self, redis_url: str) -> None:
        async with Redis.from_url(
            redis_url, socket_connect_timeout=2, socket_timeout=2, decode_responses=True
        ) as client:
            while True:
                try:
                    await self._publish_local_counts(client)
                    self._remote_counts = await self._fetch_remote_counts(client)
                except (RedisError, OSError, ValueError):
                    # Redis is away: until it returns each process counts for itself.
                    self._remote_counts = {}
                await asyncio.sleep(_SHARE_INTERVAL_SECONDS)

    async def _publish_local_counts(self, client: Redis) -> None:
        held: dict[Any, Any] = {
            f"{kind}:{token}": count
            for kind, (most, holders) in self._local_counts.items()
            for token, count in holders()
            if count * _PUBLISHED_FRACTION_DIVISOR >= most
        }
        if not held and not self._is_published:
            return
        key = _COUNTS_KEY_PREFIX + self._process_id
        async with client.pipeline(transaction=True) as pipeline:
            pipeline.delete(key)
            if held:
                pipeline.hset(key, mapping=held)
                pipeline.expire(key, _EXPIRE_SECONDS)
                pipeline.sadd(_PROCESSES_KEY, self._process_id)
            else:
                pipeline.srem(_PROCESSES_KEY, self._process_id)
            await pipeline.execute()
        self._is_published = bool(held)

    async def _fetch_remote_counts(self, client: Redis) -> dict[str, int]:
        others = sorted({str(one) for one in await client.smembers(_PROCESSES_KEY)} - {self._process_id})
        if not others:
            return {}
        async with client.pipeline(transaction=False) as pipeline:
            for other in others:
                pipeline.hgetall(_COUNTS_KEY_PREFIX + other)
            answers = await pipeline.execute()
        gone = [other for other, held in zip(others, answers, strict=True) if not held]
        if gone:
            await client.srem(_PROCESSES_KEY, *gone)
        found: dict[str, int] = {}
        for held in answers:
            for holder, count in held.items():
                found[holder] = found.get(holder, 0) + int(count)
        return found
