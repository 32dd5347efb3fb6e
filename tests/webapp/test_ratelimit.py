"""Rate limits of the web: windows, sharing through Redis, and what happens without it."""

import logging
import sys
import time
from functools import partial

import pytest
import redis

from tests.concurrency import run_jobs_concurrently
from tests.log_capture import capture_logs
from webapp import ratelimit
from webapp.ratelimit import RateLimiter

_CLOSED_PORT = "redis://127.0.0.1:1/0"


def _count_attempts(
    limiter: RateLimiter, count: int, *, bucket: str = "sign-in:192.0.2.1", limit: int = 3
) -> list[int]:
    return [limiter.count_attempt(bucket, limit) for _ in range(count)]


def test_processes_share_a_window_through_redis(redis_url: str) -> None:
    first, second = RateLimiter(redis_url), RateLimiter(redis_url)
    assert _count_attempts(first, 2) == [0, 0]
    allowed, *refused = _count_attempts(second, 3)
    assert allowed == 0
    assert all(0 < seconds <= 60 for seconds in refused)
    assert _count_attempts(first, 1, bucket="sign-in:192.0.2.2") == [0]


def test_a_window_in_redis_ends_and_is_not_extended_by_attempts(redis_url: str) -> None:
    limiter = RateLimiter(redis_url)
    _count_attempts(limiter, 3)
    with redis.Redis.from_url(redis_url) as client:
        (key,) = client.keys("*")
        client.expire(key, 7)
        assert all(0 < seconds <= 7 for seconds in _count_attempts(limiter, 2))
        assert client.ttl(key) <= 7
        client.delete(key)
    assert _count_attempts(limiter, 1) == [0]


def test_redis_holds_no_address_and_no_key_without_an_end(redis_url: str) -> None:
    _count_attempts(RateLimiter(redis_url), 4)
    with redis.Redis.from_url(redis_url) as client:
        (key,) = client.keys("*")
        assert key.startswith(b"llm-bus:tries:")
        assert b"192.0.2.1" not in key
        assert 0 < client.ttl(key) <= 60


def test_a_local_window_ends() -> None:
    limiter = RateLimiter(None)
    *allowed, refused = _count_attempts(limiter, 4)
    assert allowed == [0, 0, 0]
    assert 0 < refused <= 60
    limiter._local_storage.expirations.update(dict.fromkeys(limiter._local_storage.expirations, time.time()))
    assert _count_attempts(limiter, 1) == [0]


def test_without_redis_the_process_counts_alone_and_does_not_wait_for_it_again() -> None:
    limiter = RateLimiter(_CLOSED_PORT)
    with capture_logs(logging.WARNING) as lines:
        assert [seconds == 0 for seconds in _count_attempts(limiter, 4)] == [True, True, True, False]
    assert [line["logger"] for line in lines] == ["webapp.ratelimit"]


def test_an_error_of_redis_refuses_no_request(redis_url: str) -> None:
    limiter = RateLimiter(redis_url)
    _count_attempts(limiter, 1)
    with redis.Redis.from_url(redis_url) as client:
        (key,) = client.keys("*")
        client.set(key, "not a number")
    assert [seconds == 0 for seconds in _count_attempts(limiter, 4)] == [True, True, True, False]


def test_threads_that_begin_a_window_together_get_the_limit_exactly() -> None:
    """Frequent thread switches make the race in the library's storage likely: 8 of 300 windows without the lock."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(100):
            limiter = RateLimiter(None)
            results = run_jobs_concurrently(*[partial(limiter.count_attempt, "a", 5)] * 16)
            assert results.count(0) == 5
    finally:
        sys.setswitchinterval(interval)


def test_the_number_of_local_counters_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratelimit, "_MAX_LOCAL_KEYS", 10)
    limiter = RateLimiter(None)
    for number in range(100):
        assert _count_attempts(limiter, 1, bucket=f"sign-in:{number}") == [0]
        assert len(limiter._local_storage.storage) <= 10
