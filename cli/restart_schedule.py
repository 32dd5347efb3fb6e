"""When a process that ended is started again: at once, then with growing pauses."""

from dataclasses import dataclass

# The longest time that the bus stays away after the cause, such as a full disk, is gone.
MAX_DELAY_SECONDS = 10.0
# After a process has run this long, its next restart is immediate again.
STABLE_AFTER_SECONDS = 60.0


@dataclass
class RestartSchedule:
    """The restarts of one process or server.

    Attributes:
        started_at: time of the last start or attempt, on the monotonic clock.
        first_delay_seconds: the pause before the first restart.
        next_delay_seconds: the pause before the next restart; None before the first one.
        restart_at: when the ended process is to be started; None while it runs.
    """

    started_at: float
    first_delay_seconds: float = 0.0
    next_delay_seconds: float | None = None
    restart_at: float | None = None

    def plan_restart(self, now: float) -> float | None:
        """Plan the restart of a process that has ended; returns its delay, or None if it is planned already."""
        if self.restart_at is not None:
            return None
        if self.next_delay_seconds is None or now - self.started_at > STABLE_AFTER_SECONDS:
            self.next_delay_seconds = self.first_delay_seconds
        delay = self.next_delay_seconds
        self.restart_at = now + delay
        self.next_delay_seconds = min(MAX_DELAY_SECONDS, max(1.0, delay * 2))
        return delay

    def begin_attempt(self, now: float) -> bool:
        """Return whether the planned restart is due; if so, it counts as begun."""
        if self.restart_at is None or now < self.restart_at:
            return False
        self.restart_at = None
        self.started_at = now
        return True
