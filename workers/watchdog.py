"""A watchdog beside the worker: one that takes nothing although something waits for it is ended, to be started anew.

A restart of Redis has left Celery workers connected and deaf before. Whoever runs the process (`llm-bus up`, a
platform) starts it again.
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
# Longer than a Redis that was restarted needs to be found again.
STALL_SECONDS = 60.0
_GRACE_SECONDS = 10.0
_EXIT_CODE = 70


class Watchdog:
    """Watches one worker process.

    Args:
        queue: the name of the list in Redis in which messages wait.
        busy: whether every thread of the worker has a job at this moment.
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
        """The worker took a message."""
        self._last_activity_at = time.monotonic()

    def start(self) -> None:
        """Begin to watch, in a thread that ends with the process."""
        threading.Thread(target=self._watch_loop, name="watchdog", daemon=True).start()

    def is_stalled(self) -> bool:
        """Whether messages wait that nobody takes, for too long. What is quiet for another reason is well."""
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
