"""Capture of the log lines that this process writes, as JSON."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bus.operations.logs import JsonFormatter


@contextmanager
def capture_logs(level: int = logging.INFO) -> Iterator[list[dict[str, Any]]]:
    """Collect the log lines that are written inside the `with` block, each formatted when it is written."""
    lines: list[dict[str, Any]] = []

    class CaptureHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(self.format(record)))

    handler, root = CaptureHandler(), logging.getLogger()
    handler.setFormatter(JsonFormatter())
    previous_level = root.level
    root.addHandler(handler)
    root.setLevel(level)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(previous_level)
