"""Hints of what was committed (bus/coordination/change_notifications.py), between this process and all others."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from bus.coordination import change_notifications as wire

_log = logging.getLogger(__name__)
# How long a silent connection may be dead before it is noticed.
_HEALTH_SECONDS = 2.0
_LONGEST_PAUSE = 1.0
# Between two messages, so that a busy process sends a hundred a second and not one for each call; and while nobody
# else listens.
_PAUSE_SECONDS = 0.01
_ALONE_SECONDS = 0.2
_STOP_SECONDS = 2.0

Listener = Callable[[int, frozenset[str]], None]


class Hints:
    """Sends and hears hints. Runs on the event loop; without Redis it reaches this process only.

    Attributes:
        connected: whether hints of other processes arrive at this moment.
    """

    def __init__(self, url: str | None, *, hear: Listener, resumed: Callable[[], None]) -> None:
        """
        Args:
            hear: called with every hint, of this process and of others.
            resumed: called when hints of others arrive again and some may have been missed.
        """
        self.connected = False
        # How many messages went out, and how many came from others.
        self.sent = self.heard = 0
        self._hear = hear
        self._resumed = resumed
        self._url = url
        # Tells this process's own hints from those of others, which it has not heard yet.
        self._origin = secrets.token_hex(4)
        self._pending: dict[int, set[str]] = {}
        self._something = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Connect, and stay connected."""
        if self._url is not None:
            self._tasks = [asyncio.create_task(self._send_for_ever()), asyncio.create_task(self._hear_for_ever())]

    async def stop(self) -> None:
        """Send what is pending, and disconnect."""
        if self._pending:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    while self._pending:
                        await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            # Not for ever: a client library that swallows a cancellation must not keep the process.
            await asyncio.wait(self._tasks, timeout=_STOP_SECONDS)

    def give(self, project_id: int, kinds: frozenset[str]) -> None:
        """Something of these kinds was committed in a project."""
        self._hear(project_id, kinds)
        if self.connected:
            self._pending.setdefault(project_id, set()).update(kinds)
            self._something.set()

    def _client(self) -> Redis:
        assert self._url is not None
        return Redis.from_url(
            self._url,
            socket_connect_timeout=2,
            socket_timeout=None,
            health_check_interval=_HEALTH_SECONDS,
            decode_responses=True,
        )

    async def _send_for_ever(self) -> None:
        async with self._client() as client:
            while True:
                await self._something.wait()
                self._something.clear()
                pending, self._pending = self._pending, {}
                heard_by = 0
                try:
                    async with asyncio.timeout(2):
                        heard_by = await client.publish(wire.CHANNEL, wire.write(self._origin, pending))
                        self.sent += 1
                except (RedisError, OSError, TimeoutError):
                    # Others find it at their next look; nothing is kept for them.
                    _log.debug("hints were not sent", exc_info=True)
                # The first goes out at once; what comes meanwhile goes out together.
                await asyncio.sleep(_PAUSE_SECONDS if heard_by > 1 else _ALONE_SECONDS)

    async def _hear_for_ever(self) -> None:
        pause = 0.1
        while True:
            try:
                async with self._client() as client, client.pubsub() as channel:
                    await channel.subscribe(wire.CHANNEL)
                    while True:
                        message = await channel.get_message(timeout=_HEALTH_SECONDS)
                        if message is None:
                            continue
                        if message["type"] == "subscribe":
                            self.connected, pause = True, 0.1
                            self._resumed()
                        elif message["type"] == "message":
                            self._take(message["data"])
            except (RedisError, OSError, TimeoutError) as error:
                if self.connected:
                    _log.warning("hints are away, polling instead: %s", error)
                self.connected = False
            except asyncio.CancelledError:
                self.connected = False
                raise
            except Exception:  # noqa: BLE001 - nothing that Redis says may end this
                _log.exception("hints failed")
                self.connected = False
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _take(self, text: str) -> None:
        origin, hints = wire.read(text)
        if origin != self._origin:
            self.heard += 1
            for project_id, kinds in hints:
                self._hear(project_id, kinds)
