"""Change notifications between this process and all others, over Redis."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from bus.coordination import change_notifications

_log = logging.getLogger(__name__)
# A dead connection that is silent is detected after this long.
_HEALTH_CHECK_SECONDS = 2.0
_MAX_RECONNECT_SECONDS = 1.0
# Pauses between two messages. To send one and to receive it costs two processes 0.45 ms of CPU, so a busy process
# sends thirty a second and not one per call; without other subscribers it sends five.
_SEND_INTERVAL_SECONDS = 0.03
_SEND_INTERVAL_WITHOUT_PEERS_SECONDS = 0.2
_STOP_TIMEOUT_SECONDS = 2.0

ChangeListener = Callable[[int, frozenset[str]], None]


class ChangeNotifier:
    """Sends and receives change notifications on the event loop; without Redis they stay in this process.

    Args:
        on_change: called with the project and the topics of every notification, local or remote.
        on_reconnect: called when remote notifications arrive again; some may have been missed.
    Attributes:
        is_connected: whether notifications from other processes arrive at present.
        sent_count: messages sent to Redis.
        received_count: messages received from other processes.
    """

    def __init__(self, redis_url: str | None, *, on_change: ChangeListener, on_reconnect: Callable[[], None]) -> None:
        self.is_connected = False
        self.sent_count = self.received_count = 0
        self._on_change = on_change
        self._on_reconnect = on_reconnect
        self._redis_url = redis_url
        # Identifies the messages of this process, whose changes were handled when they were published.
        self._sender_id = secrets.token_hex(4)
        self._pending: dict[int, set[str]] = {}
        self._has_pending = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Connect, and reconnect after failures."""
        if self._redis_url is not None:
            self._tasks = [asyncio.create_task(self._send_loop()), asyncio.create_task(self._receive_loop())]

    async def stop(self) -> None:
        """Send pending notifications and disconnect."""
        if self._pending:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    while self._pending:
                        await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            # Bounded: a client library that swallows a cancellation must not keep the process alive.
            await asyncio.wait(self._tasks, timeout=_STOP_TIMEOUT_SECONDS)

    def publish(self, project_id: int, topics: frozenset[str]) -> None:
        """Notify this process and the others that a commit changed a project."""
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
                receiver_count = 0
                try:
                    async with asyncio.timeout(2):
                        receiver_count = await client.publish(
                            change_notifications.CHANNEL, change_notifications.encode(self._sender_id, pending)
                        )
                        self.sent_count += 1
                except (RedisError, OSError, TimeoutError):
                    # Not retried: other processes poll PostgreSQL and find the change there.
                    _log.debug("change notifications were not sent", exc_info=True)
                # The first notification goes out at once; those that follow during the pause are sent together.
                await asyncio.sleep(
                    _SEND_INTERVAL_SECONDS if receiver_count > 1 else _SEND_INTERVAL_WITHOUT_PEERS_SECONDS
                )

    async def _receive_loop(self) -> None:
        retry_delay = 0.1
        while True:
            try:
                async with self._create_client() as client, client.pubsub() as pubsub:
                    await pubsub.subscribe(change_notifications.CHANNEL)
                    while True:
                        message = await pubsub.get_message(timeout=_HEALTH_CHECK_SECONDS)
                        if message is None:
                            continue
                        if message["type"] == "subscribe":
                            self.is_connected, retry_delay = True, 0.1
                            self._on_reconnect()
                        elif message["type"] == "message":
                            self._handle_message(message["data"])
            except (RedisError, OSError, TimeoutError) as error:
                if self.is_connected:
                    _log.warning("change notifications are unavailable, polling instead: %s", error)
                self.is_connected = False
            except asyncio.CancelledError:
                self.is_connected = False
                raise
            except Exception:  # noqa: BLE001 - no message may end this loop
                _log.exception("receiving change notifications failed")
                self.is_connected = False
            await asyncio.sleep(retry_delay)
            retry_delay = min(retry_delay * 2, _MAX_RECONNECT_SECONDS)

    def _handle_message(self, message: str) -> None:
        sender_id, changes = change_notifications.decode(message)
        if sender_id != self._sender_id:
            self.received_count += 1
            for project_id, topics in changes:
                self._on_change(project_id, topics)
