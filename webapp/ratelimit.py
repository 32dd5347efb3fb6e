"""Rate limits over fixed windows of one minute, counted in Redis across processes, or per process without Redis."""

import hashlib
import ipaddress
import logging
import threading
import time

from flask import current_app, request
from redis import Redis, RedisError
from werkzeug.exceptions import TooManyRequests

_log = logging.getLogger("webapp.ratelimit")
_WINDOW_SECONDS = 60
# While Redis is down, requests do not wait for it; it is tried again after this pause.
_REDIS_RETRY_SECONDS = 5.0
_REDIS_TIMEOUT_SECONDS = 0.25
_MAX_KEYS = 50_000


class RateLimiter:
    """Counters by bucket for the current minute."""

    def __init__(self, redis_url: str | None) -> None:
        self._redis = (
            None
            if redis_url is None
            else Redis.from_url(
                redis_url, socket_connect_timeout=_REDIS_TIMEOUT_SECONDS, socket_timeout=_REDIS_TIMEOUT_SECONDS
            )
        )
        self._redis_down_until = 0.0
        self._lock = threading.Lock()
        self._window = 0
        self._counts: dict[str, int] = {}

    def increment(self, bucket: str) -> int:
        """Count one attempt; returns the number of attempts in this minute, including this one."""
        window = int(time.time()) // _WINDOW_SECONDS
        if self._redis is not None and time.monotonic() >= self._redis_down_until:
            # Buckets contain client addresses; a hash keeps them out of Redis.
            key = f"llm-bus:tries:{hashlib.sha256(bucket.encode()).hexdigest()[:32]}:{window}"
            try:
                with self._redis.pipeline(transaction=False) as pipe:
                    pipe.incr(key)
                    pipe.expire(key, 2 * _WINDOW_SECONDS)
                    return int(pipe.execute()[0])
            except (RedisError, ValueError) as error:
                self._redis_down_until = time.monotonic() + _REDIS_RETRY_SECONDS
                _log.warning("Redis does not answer; this process counts by itself: %s", error)
        with self._lock:
            if window != self._window or len(self._counts) >= _MAX_KEYS:
                self._window, self._counts = window, {}
            self._counts[bucket] = self._counts.get(bucket, 0) + 1
            return self._counts[bucket]

    def close(self) -> None:
        """Close the connections to Redis."""
        if self._redis is not None:
            self._redis.close()


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
    if limiter.increment(f"{action}:{client}") > per_minute:
        raise TooManyRequests(retry_after=_WINDOW_SECONDS - int(time.time()) % _WINDOW_SECONDS)


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
