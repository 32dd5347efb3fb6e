"""A bus of the demo's own, for where none is running."""

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
# They describe the user's bus, not this one.
_EXCLUDED_VARIABLES = ("DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "MCP_URL", "ALLOWED_HOSTS", "ALLOWED_ORIGINS", "PORT")


@contextmanager
def temporary_bus() -> Iterator[Settings]:
    """Start `llm-bus up` in a temporary folder, and end it and remove the folder afterwards.

    Raises:
        CliError: it did not start; the message ends with what it said.
    """
    before = signal.signal(signal.SIGTERM, _forward_to_sigint_handler)
    folder = Path(tempfile.mkdtemp(prefix="llm-bus-demo-"))
    # Beside the data folder, which has to be empty at its first start.
    log = folder.with_name(f"{folder.name}.log")
    env = {name: value for name, value in os.environ.items() if name not in _EXCLUDED_VARIABLES}
    try:
        # On its leash it ends also if this process is killed.
        process = child.spawn(
            [sys.executable, "-m", "cli.main", "up", "--json", "--data", str(folder)],
            log_path=log,
            death_signal=signal.SIGTERM,
            env=env,
            cwd=Path.cwd(),
        )
        try:
            answers = child.wait_until(
                lambda: runtime.find_running(folder) is not None, process, _START_TIMEOUT_SECONDS, child.do_nothing
            )
            found = runtime.find_running(folder)
            if not answers or found is None:
                raise CliError(f"A temporary bus did not start:{child.format_log_tail(log)}")
            yield Settings.from_env(
                {
                    "DATABASE_URL": found.database_url,
                    "REDIS_URL": found.redis_url,
                    "PUBLIC_URL": found.public_url,
                    "MCP_URL": found.mcp_url,
                }
            )
        finally:
            child.stop(process, _STOP_SIGNALS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        log.unlink(missing_ok=True)
        signal.signal(signal.SIGTERM, before)


def _forward_to_sigint_handler(number: int, frame: FrameType | None) -> None:
    """Do what Ctrl-C does at this moment, so that connections close, the bus ends and its folder goes."""
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(number, frame)
