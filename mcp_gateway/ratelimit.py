"""How many calls one token may make, counted in this process."""

import time

from bus.ctx import Ctx

_BURST_SECONDS = 10


class RateLimit:
    """A token bucket per bearer token; off at 0. Idle buckets are forgotten when they are full again."""

    def __init__(self, per_minute: int) -> None:
        self._rate = per_minute / 60
        self._burst = max(1.0, self._rate * _BURST_SECONDS)
        self._buckets: dict[int | None, tuple[float, float]] = {}

    def admit(self, ctx: Ctx) -> bool:
        """Count one call; whether it may go on."""
        if self._rate == 0:
            return True
        now = time.monotonic()
        left, at = self._buckets.get(ctx.token_id, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        admitted = left >= 1
        self._buckets[ctx.token_id] = (left - 1 if admitted else left, now)
        if len(self._buckets) > 10_000:
            self._forget(now)
        return admitted

    def _forget(self, now: float) -> None:
        full_after = self._burst / self._rate
        self._buckets = {key: value for key, value in self._buckets.items() if now - value[1] < full_after}
