"""A temporary bus for a demo."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from bus.config.settings import Settings
from cli import runtime
from cli.embedded import child
from cli.exit_codes import CliError

_START_TIMEOUT_SECONDS = 120.0
_STOP_SIGNALS = ((signal.SIGTERM, 30.0),)
# Settings of the user's bus, which must not apply to this one.
_EXCLUDED_VARIABLES = (
    "DATABASE_URL",
    "MIGRATION_DATABASE_URL",
    "REDIS_URL",
    "PUBLIC_URL",
    "MCP_URL",
    "ALLOWED_HOSTS",
    "ALLOWED_ORIGINS",
    "PORT",
)


@contextmanager
def temporary_bus() -> Iterator[Settings]:
    """Start `llm-bus up` in a temporary folder; stop it and remove the folder afterwards.

    Raises:
        CliError: it did not start; the message ends with its log.
    """
    previous_handler = signal.signal(signal.SIGTERM, _forward_to_sigint_handler)
    folder = Path(tempfile.mkdtemp(prefix="llm-bus-demo-"))
    # Beside the data folder, which must be empty at the first start.
    log = folder.with_name(f"{folder.name}.log")
    env = {name: value for name, value in os.environ.items() if name not in _EXCLUDED_VARIABLES}
    try:
        # The child is tied to this process, so it also ends if this process is killed.
        process = child.spawn(
            [sys.executable, "-m", "cli.main", "up", "--json", "--data", str(folder)],
            log_path=log,
            death_signal=signal.SIGTERM,
            env=env,
            cwd=Path.cwd(),
        )
        try:
            ready = child.wait_until(
                lambda: runtime.find_running(folder) is not None, process, _START_TIMEOUT_SECONDS, child.do_nothing
            )
            running = runtime.find_running(folder)
            if not ready or running is None:
                raise CliError(f"A temporary bus did not start:{child.format_log_tail(log)}")
            yield Settings.from_env(
                {
                    "DATABASE_URL": running.database_url,
                    "REDIS_URL": running.redis_url,
                    "PUBLIC_URL": running.public_url,
                    "MCP_URL": running.mcp_url,
                }
            )
        finally:
            child.stop(process, _STOP_SIGNALS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        log.unlink(missing_ok=True)
        signal.signal(signal.SIGTERM, previous_handler)


def _forward_to_sigint_handler(number: int, frame: FrameType | None) -> None:
    """Call the handler of Ctrl-C, so that connections close, the bus stops and its folder is removed."""
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(number, frame)
