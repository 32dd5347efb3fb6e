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

_SHARE_SECONDS = 1.0
# Who was not heard of for as long is gone, and holds nothing.
_GONE_SECONDS = 5
_STOP_SECONDS = 2.0
# Who holds less than this part of its limit is not worth telling of.
_TOLD_FROM = 16
_PROCESSES = "llm-bus:holders"
_PREFIX = "llm-bus:held:"

Holders = Callable[[], Iterator[tuple[int | None, int]]]


class Holdings:
    """Tells other processes what tokens hold here, and knows what they hold there. Runs on the event loop."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._origin = secrets.token_hex(8)
        self._kinds: dict[str, tuple[int, Holders]] = {}
        self._elsewhere: dict[str, int] = {}
        self._told = False
        self._task: asyncio.Task[None] | None = None

    def share(self, kind: str, most: int, holders: Holders) -> Callable[[int | None], int]:
        """Share what is held of a kind; returns how much of it a token holds in other processes.

        Args:
            most: how many one token may hold.
            holders: each token with how many it holds here.
        """
        self._kinds[kind] = (most, holders)
        return lambda token: self._elsewhere.get(f"{kind}:{token}", 0)

    def start(self) -> None:
        """Begin to share, where there is a place for it."""
        if self._url is not None:
            self._task = asyncio.create_task(self._share_for_ever(self._url))

    async def stop(self) -> None:
        """End what `start` began."""
        if self._task is not None:
            self._task.cancel()
            # Not for ever: a client library that swallows a cancellation must not keep the process.
            await asyncio.wait([self._task], timeout=_STOP_SECONDS)

    async def _share_for_ever(self, url: str) -> None:
        async with Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2, decode_responses=True) as client:
            while True:
                try:
                    await self._tell(client)
                    self._elsewhere = await self._ask(client)
                except (RedisError, OSError, ValueError):
                    # Redis is away: until it returns each process counts for itself.
                    self._elsewhere = {}
                await asyncio.sleep(_SHARE_SECONDS)

    async def _tell(self, client: Redis) -> None:
        held: dict[Any, Any] = {
            f"{kind}:{token}": count
            for kind, (most, holders) in self._kinds.items()
            for token, count in holders()
            if count * _TOLD_FROM >= most
        }
        if not held and not self._told:
            return
        key = _PREFIX + self._origin
        async with client.pipeline(transaction=True) as pipeline:
            pipeline.delete(key)
            if held:
                pipeline.hset(key, mapping=held)
                pipeline.expire(key, _GONE_SECONDS)
                pipeline.sadd(_PROCESSES, self._origin)
            else:
                pipeline.srem(_PROCESSES, self._origin)
            await pipeline.execute()
        self._told = bool(held)

    async def _ask(self, client: Redis) -> dict[str, int]:
        others = sorted({str(one) for one in await client.smembers(_PROCESSES)} - {self._origin})
        if not others:
            return {}
        async with client.pipeline(transaction=False) as pipeline:
            for other in others:
                pipeline.hgetall(_PREFIX + other)
            answers = await pipeline.execute()
        gone = [other for other, held in zip(others, answers, strict=True) if not held]
        if gone:
            await client.srem(_PROCESSES, *gone)
        found: dict[str, int] = {}
        for held in answers:
            for holder, count in held.items():
                found[holder] = found.get(holder, 0) + int(count)
        return found
