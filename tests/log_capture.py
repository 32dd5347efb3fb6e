"""Log lines as this process writes them, formatted at the moment when they are written."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bus.operations.logs import JsonFormatter


@contextmanager
def capture_logs(level: int = logging.INFO) -> Iterator[list[dict[str, Any]]]:
    """The lines that are written meanwhile."""
    lines: list[dict[str, Any]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(self.format(record)))

    handler, root = Keep(), logging.getLogger()
    handler.setFormatter(JsonFormatter())
    before = root.level
    root.addHandler(handler)
    root.setLevel(level)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
