"""Counts of the calls and streams that each token holds open in other processes, for a limit over all processes.

Each process decides alone and publishes the counts of its largest holders once a second. A token may therefore exceed
its limit by the number that it opens within a second; without Redis the limit applies per process.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

_SHARE_INTERVAL_SECONDS = 1.0
# A process that has not published for this long is taken to have stopped, and holds nothing.
_EXPIRE_SECONDS = 5
_STOP_TIMEOUT_SECONDS = 2.0
# Counts below this fraction of the limit are not published.
_PUBLISHED_FRACTION_DIVISOR = 16
_PROCESSES_KEY = "llm-bus:holders"
_COUNTS_KEY_PREFIX = "llm-bus:held:"

IterateCounts = Callable[[], Iterator[tuple[int | None, int]]]


class SharedConcurrencyCounts:
    """Publishes this process's counts per token and reads those of other processes. Runs on the event loop."""

    def __init__(self, redis_url: str | None) -> None:
        self._redis_url = redis_url
        self._process_id = secrets.token_hex(8)
        self._local_counts: dict[str, tuple[int, IterateCounts]] = {}
        self._remote_counts: dict[str, int] = {}
        self._is_published = False
        self._task: asyncio.Task[None] | None = None

    def register(self, kind: str, limit: int, iterate_counts: IterateCounts) -> Callable[[int | None], int]:
        """Publish the counts of a kind, and return a function that gives a token's count in other processes.

        Args:
            kind: the name under which the processes share the counts.
            limit: how many one token may hold.
            iterate_counts: yields each token with its count in this process.
        """
        self._local_counts[kind] = (limit, iterate_counts)
        return lambda token_id: self._remote_counts.get(f"{kind}:{token_id}", 0)

    def start(self) -> None:
        """Start sharing, if Redis is configured."""
        if self._redis_url is not None:
            self._task = asyncio.create_task(self._share_loop(self._redis_url))

    async def stop(self) -> None:
        """Stop sharing."""
        if self._task is not None:
            self._task.cancel()
            # Bounded: a client library that swallows a cancellation must not keep the process alive.
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
                    # While Redis is unavailable each process applies the limit alone.
                    self._remote_counts = {}
                await asyncio.sleep(_SHARE_INTERVAL_SECONDS)

    async def _publish_local_counts(self, client: Redis) -> None:
        counts: dict[Any, Any] = {
            f"{kind}:{token_id}": count
            for kind, (limit, iterate_counts) in self._local_counts.items()
            for token_id, count in iterate_counts()
            if count * _PUBLISHED_FRACTION_DIVISOR >= limit
        }
        if not counts and not self._is_published:
            return
        key = _COUNTS_KEY_PREFIX + self._process_id
        async with client.pipeline(transaction=True) as pipeline:
            pipeline.delete(key)
            if counts:
                pipeline.hset(key, mapping=counts)
                pipeline.expire(key, _EXPIRE_SECONDS)
                pipeline.sadd(_PROCESSES_KEY, self._process_id)
            else:
                pipeline.srem(_PROCESSES_KEY, self._process_id)
            await pipeline.execute()
        self._is_published = bool(counts)

    async def _fetch_remote_counts(self, client: Redis) -> dict[str, int]:
        process_ids = {str(process_id) for process_id in await client.smembers(_PROCESSES_KEY)}
        other_ids = sorted(process_ids - {self._process_id})
        if not other_ids:
            return {}
        async with client.pipeline(transaction=False) as pipeline:
            for process_id in other_ids:
                pipeline.hgetall(_COUNTS_KEY_PREFIX + process_id)
            counts_of_others = await pipeline.execute()
        stopped_ids = [process_id for process_id, counts in zip(other_ids, counts_of_others, strict=True) if not counts]
        if stopped_ids:
            await client.srem(_PROCESSES_KEY, *stopped_ids)
        totals: dict[str, int] = {}
        for counts in counts_of_others:
            for holder, count in counts.items():
                totals[holder] = totals.get(holder, 0) + int(count)
        return totals
