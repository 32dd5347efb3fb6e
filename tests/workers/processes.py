"""Workers and schedulers for tests: the real entry points, with jobs that come every second."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import process_pool
from tests.process_pool import Forked

PATIENCE = 60.0
# What a test waits for comes often; what it does not wait for stays away.
EVERY = "expire_leases=0.5,escalate_overdue_posts=0.5,decay_presence=0.5,requeue_stalled_tasks=0.5,heartbeat=0.5"


@dataclass
class Process:
    """A running worker or scheduler; `log` holds what it printed."""

    role: str
    popen: "subprocess.Popen[bytes] | Forked"
    log: Path

    @property
    def said(self) -> str:
        """What it printed so far."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """End it as a crash would."""
        self.popen.kill()
        self.popen.wait()


def start(role: str, database_url: str, redis_url: str, **env: str) -> Process:
    """Start `worker` or `beat`; does not wait for it."""
    handle, name = tempfile.mkstemp(prefix=f"{role}-", suffix=".log")
    given = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "JOB_EVERY": EVERY, **env}
    with os.fdopen(handle, "wb") as output:
        popen = process_pool.start("workers", role, env={**os.environ, **given}, output=output)
    return Process(role, popen, Path(name))


@contextmanager
def running(database_url: str, redis_url: str, *roles: str, **env: str) -> Iterator[list[Process]]:
    """Processes of these roles over one database and one Redis; ended afterwards, however the test went."""
    started = [start(role, database_url, redis_url, **env) for role in roles or ("worker", "beat")]
    try:
        yield started
    finally:
        stop(started)


def stop(started: list[Process]) -> None:
    """End processes as a deploy would, and remove their logs."""
    for process in started:
        if process.popen.poll() is None:
            process.popen.send_signal(signal.SIGTERM)
    for process in started:
        try:
            process.popen.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        process.log.unlink(missing_ok=True)


def until(what: Callable[[], object], *processes: Process, patience: float = PATIENCE) -> object:
    """Ask until the answer is true; fails with what the processes said."""
    deadline = time.monotonic() + patience
    while not (found := what()):
        said = "\n".join(f"{process.role}: {process.said[-2000:]}" for process in processes)
        assert time.monotonic() < deadline, f"it never came\n{said}"
        time.sleep(0.1)
    return found
