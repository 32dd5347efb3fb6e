"""Rate limits over fixed windows of one minute, counted in Redis across processes, or per process without Redis."""

import hashlib
import ipaddress
import logging
import math
import threading
import time

from flask import current_app, request
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter
from werkzeug.exceptions import TooManyRequests

_log = logging.getLogger("webapp.ratelimit")
_KEY_PREFIX = "llm-bus:tries"
# While Redis is down, requests do not wait for it; it is tried again after this pause.
_REDIS_RETRY_SECONDS = 5.0
_REDIS_TIMEOUT_SECONDS = 0.25
_MAX_LOCAL_KEYS = 50_000


class RateLimiter:
    """Counters by bucket. The window of a bucket begins with its first attempt and lasts one minute."""

    def __init__(self, redis_url: str | None) -> None:
        self._shared = (
            None
            if redis_url is None
            else FixedWindowRateLimiter(
                RedisStorage(
                    redis_url,
                    key_prefix=_KEY_PREFIX,
                    wrap_exceptions=True,
                    socket_connect_timeout=_REDIS_TIMEOUT_SECONDS,
                    socket_timeout=_REDIS_TIMEOUT_SECONDS,
                )
            )
        )
        self._redis_down_until = 0.0
        self._lock = threading.Lock()
        self._local_storage = MemoryStorage()

    def count_attempt(self, bucket: str, per_minute: int) -> int:
        """Count one attempt.

        Returns:
            0 if the attempt is within the limit, else the seconds until the window ends, at least 1.
        """
        limit = RateLimitItemPerMinute(per_minute)
        # Buckets contain client addresses; a hash keeps them out of Redis.
        key = hashlib.sha256(bucket.encode()).hexdigest()[:32]
        if self._shared is not None and time.monotonic() >= self._redis_down_until:
            try:
                return _hit(self._shared, limit, key)
            # ValueError: an answer that is not of Redis's protocol.
            except (StorageError, ValueError) as error:
                self._redis_down_until = time.monotonic() + _REDIS_RETRY_SECONDS
                _log.warning("Redis does not answer; this process counts by itself: %s", error)
        # The library's storage loses counts when several threads begin a window together.
        with self._lock:
            if len(self._local_storage.storage) >= _MAX_LOCAL_KEYS:
                self._local_storage = MemoryStorage()
            return _hit(FixedWindowRateLimiter(self._local_storage), limit, key)


def _hit(limiter: FixedWindowRateLimiter, limit: RateLimitItem, key: str) -> int:
    if limiter.hit(limit, key):
        return 0
    return max(1, math.ceil(limiter.get_window_stats(limit, key).reset_time - time.time()))


def enforce_rate_limit(action: str, client: str, per_minute: int) -> None:
    """Count an attempt and reject it above the limit.

    Args:
        action: what is limited, such as `sign-in`.
        client: who is limited, such as `client_address()`.
        per_minute: allowed attempts in a minute; 0 disables the limit.
    Raises:
        TooManyRequests: the limit is exceeded. The error carries Retry-After.
    """
    if per_minute == 0:
        return
    limiter: RateLimiter = current_app.extensions["bus.rate_limiter"]
    retry_after = limiter.count_attempt(f"{action}:{client}", per_minute)
    if retry_after:
        raise TooManyRequests(retry_after=retry_after)


def client_address() -> str:
    """The client for rate limits: an IPv4 address, or the /64 network that an IPv6 customer usually gets.

    Behind proxies it is the address reported by the trusted ones (PROXY_HOPS), never a header that a client can forge.
    """
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return "unknown"
    if address.version == 6:
        mapped = address.ipv4_mapped
        return str(mapped) if mapped is not None else str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
