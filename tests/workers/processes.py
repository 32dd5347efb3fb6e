"""Workers and schedulers for tests: the real entry points, with short job intervals."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests import concurrency, process_pool, servers
from tests.process_pool import ForkedProcess

TIMEOUT_SECONDS = 60.0
# Jobs that tests wait for run often.
JOB_INTERVALS = (
    "expire_leases=0.5,escalate_overdue_posts=0.5,decay_presence=0.5,requeue_stalled_tasks=0.5,heartbeat=0.5"
)


_Value = TypeVar("_Value")


@dataclass
class WorkerProcess:
    """A running worker or scheduler; `log` holds what it printed."""

    role: str
    popen: "subprocess.Popen[bytes] | ForkedProcess"
    log: Path

    @property
    def output(self) -> str:
        """Everything that it has printed so far."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """Kill the process, as a crash would."""
        self.popen.kill()
        self.popen.wait()


def start_process(role: str, database_url: str, redis_url: str, **env: str) -> WorkerProcess:
    """Start `worker` or `beat` without waiting until it is ready."""
    handle, name = tempfile.mkstemp(prefix=f"{role}-", suffix=".log")
    url = servers.application_url(database_url)
    settings = {"DATABASE_URL": url, "REDIS_URL": redis_url, "JOB_EVERY": JOB_INTERVALS, **env}
    with os.fdopen(handle, "wb") as output:
        popen = process_pool.start_module("workers", role, env={**os.environ, **settings}, output=output)
    return WorkerProcess(role, popen, Path(name))


@contextmanager
def running_workers(database_url: str, redis_url: str, *roles: str, **env: str) -> Iterator[list[WorkerProcess]]:
    """Processes of these roles over one database and one Redis; stopped when the block ends."""
    started = [start_process(role, database_url, redis_url, **env) for role in roles or ("worker", "beat")]
    try:
        yield started
    finally:
        stop_processes(started)


def stop_processes(started: list[WorkerProcess]) -> None:
    """Stop processes with SIGTERM, as a deploy does, and remove their logs."""
    for process in started:
        if process.popen.poll() is None:
            process.popen.send_signal(signal.SIGTERM)
    for process in started:
        try:
            process.popen.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        process.log.unlink(missing_ok=True)


def wait_until(condition: Callable[[], _Value], *processes: WorkerProcess) -> _Value:
    """Poll the condition until it is true and return its value; fail with the output of the processes."""

    def show_output() -> str:
        return "\n".join(f"{process.role}: {process.output[-2000:]}" for process in processes)

    return concurrency.wait_until(condition, TIMEOUT_SECONDS, describe=show_output)
