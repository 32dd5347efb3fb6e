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
_HEALTH_CHECK_SECONDS = 2.0
_MAX_RECONNECT_SECONDS = 1.0
# Between two messages, so that a busy process sends a hundred a second and not one for each call; and while nobody
# else listens.
_SEND_INTERVAL_SECONDS = 0.01
_SEND_INTERVAL_WITHOUT_PEERS_SECONDS = 0.2
_STOP_TIMEOUT_SECONDS = 2.0

ChangeListener = Callable[[int, frozenset[str]], None]


class ChangeNotifier:
    """Sends and hears hints. Runs on the event loop; without Redis it reaches this process only.

    Attributes:
        connected: whether hints of other processes arrive at this moment.
    """

    def __init__(self, redis_url: str | None, *, on_change: ChangeListener, on_reconnect: Callable[[], None]) -> None:
        """
        Args:
            hear: called with every hint, of this process and of others.
            resumed: called when hints of others arrive again and some may have been missed.
        """
        self.is_connected = False
        # How many messages went out, and how many came from others.
        self.sent_count = self.received_count = 0
        self._on_change = on_change
        self._on_reconnect = on_reconnect
        self._redis_url = redis_url
        # Tells this process's own hints from those of others, which it has not heard yet.
        self._sender_id = secrets.token_hex(4)
        self._pending: dict[int, set[str]] = {}
        self._has_pending = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Connect, and stay connected."""
        if self._redis_url is not None:
            self._tasks = [asyncio.create_task(self._send_loop()), asyncio.create_task(self._receive_loop())]

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
            await asyncio.wait(self._tasks, timeout=_STOP_TIMEOUT_SECONDS)

    def publish(self, project_id: int, topics: frozenset[str]) -> None:
        """Something of these kinds was committed in a project."""
        self._on_change(project_id, topics)
        if self.is_connected:
            self._pending.setdefault(project_id, set()).update(topics)
            self._has_pending.set()

    def _create_client(self) -> Redis:
        assert self._redis_url is not None
        return Redis.from_url(
            self._redis_url,
            socket_connect_timeout=2,
            socket_timeout=None,
            health_check_interval=_HEALTH_CHECK_SECONDS,
            decode_responses=True,
        )

    async def _send_loop(self) -> None:
        async with self._create_client() as client:
            while True:
                await self._has_pending.wait()
                self._has_pending.clear()
                pending, self._pending = self._pending, {}
                heard_by = 0
                try:
                    async with asyncio.timeout(2):
                        heard_by = await client.publish(wire.CHANNEL, wire.encode(self._sender_id, pending))
                        self.sent_count += 1
                except (RedisError, OSError, TimeoutError):
                    # Others find it at their next look; nothing is kept for them.
                    _log.debug("hints were not sent", exc_info=True)
                # The first goes out at once; what comes meanwhile goes out together.
                await asyncio.sleep(_SEND_INTERVAL_SECONDS if heard_by > 1 else _SEND_INTERVAL_WITHOUT_PEERS_SECONDS)

    async def _receive_loop(self) -> None:
        pause = 0.1
        while True:
            try:
                async with self._create_client() as client, client.pubsub() as channel:
                    await channel.subscribe(wire.CHANNEL)
                    while True:
                        message = await channel.get_message(timeout=_HEALTH_CHECK_SECONDS)
                        if message is None:
                            continue
                        if message["type"] == "subscribe":
                            self.is_connected, pause = True, 0.1
                            self._on_reconnect()
                        elif message["type"] == "message":
                            self._handle_message(message["data"])
            except (RedisError, OSError, TimeoutError) as error:
                if self.is_connected:
                    _log.warning("hints are away, polling instead: %s", error)
                self.is_connected = False
            except asyncio.CancelledError:
                self.is_connected = False
                raise
            except Exception:  # noqa: BLE001 - nothing that Redis says may end this
                _log.exception("hints failed")
                self.is_connected = False
            await asyncio.sleep(pause)
            pause = min(pause * 2, _MAX_RECONNECT_SECONDS)

    def _handle_message(self, message: str) -> None:
        origin, hints = wire.decode(message)
        if origin != self._sender_id:
            self.received_count += 1
            for project_id, kinds in hints:
                self._on_change(project_id, kinds)
