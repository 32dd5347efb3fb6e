"""Watchdog of a worker: end the process, for its supervisor to restart, when it takes no message although some wait.

After a restart of Redis, Celery workers have stayed connected without receiving anything. The supervisor of the process
(`llm-bus up`, a platform) starts it again.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable

from redis import Redis
from redis.exceptions import RedisError

_log = logging.getLogger(__name__)
_CHECK_INTERVAL_SECONDS = 5.0
# Longer than a worker needs to reconnect to a Redis that was restarted.
STALL_SECONDS = 60.0
_GRACE_SECONDS = 10.0
_EXIT_CODE = 70


class Watchdog:
    """Watches the worker of this process.

    Args:
        queue: the list in Redis in which messages wait.
        is_busy: returns whether every thread of the worker is running a job.
        stall_seconds: how long messages may wait while the worker is idle.
    """

    def __init__(
        self, redis_url: str, queue: str, is_busy: Callable[[], bool], *, stall_seconds: float = STALL_SECONDS
    ) -> None:
        self._redis = Redis.from_url(redis_url, socket_connect_timeout=2, socket_timeout=2)
        self._queue = queue
        self._is_busy = is_busy
        self._stall_seconds = stall_seconds
        self._last_activity_at = time.monotonic()

    def record_activity(self) -> None:
        """Record that the worker took a message."""
        self._last_activity_at = time.monotonic()

    def start(self) -> None:
        """Start watching in a daemon thread."""
        threading.Thread(target=self._watch_loop, name="watchdog", daemon=True).start()

    def is_stalled(self) -> bool:
        """Return whether messages have waited for too long while the worker was idle."""
        try:
            waiting = self._redis.llen(self._queue)
        except (RedisError, OSError):
            waiting = 0
        if not waiting or self._is_busy():
            # Redis is away, or there is nothing to take: the time counts from here.
            self._last_activity_at = time.monotonic()
        return time.monotonic() - self._last_activity_at > self._stall_seconds

    def _watch_loop(self) -> None:
        while True:
            time.sleep(min(_CHECK_INTERVAL_SECONDS, self._stall_seconds / 4))
            if self.is_stalled():
                _log.critical("messages wait and this worker has taken none for %.0f s; ending it", self._stall_seconds)
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(_GRACE_SECONDS)
                os._exit(_EXIT_CODE)
