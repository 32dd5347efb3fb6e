"""Structured logs: one JSON object per line on standard output, in the same format in every process."""

import functools
import itertools
import json
import logging
import re
import secrets
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import msgspec

_encoder = msgspec.json.Encoder(enc_hook=str)

# Field added to every log line of the current context: name and value, such as ("request_id", "…").
log_context: ContextVar[tuple[str, str] | None] = ContextVar("log_context", default=None)

REQUEST_ID = "request_id"
# Safe in a header and in a log: the token characters of HTTP.
_ID_PATTERN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
# An id combines a random prefix of the process with a sequence number.
_PROCESS_PREFIX = secrets.token_hex(6)
_sequence_numbers = itertools.count(1)


def new_correlation_id() -> str:
    """Return a new id for a request or a job run."""
    return f"{_PROCESS_PREFIX}-{next(_sequence_numbers):x}"


def accept_correlation_id(header_value: str | None) -> str:
    """Return the id that the client sent if it is valid, else a new one."""
    return header_value if header_value is not None and _ID_PATTERN.fullmatch(header_value) else new_correlation_id()


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON; `extra={"fields": {…}}` adds fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        line: dict[str, Any] = {
            "at": f"{_format_second(int(record.created))}.{int(record.created % 1 * 1000):03d}+00:00",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        context = log_context.get()
        if context is not None:
            field, value = context
            line[field] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return _encoder.encode(line).decode()
        except UnicodeEncodeError:
            # A lone surrogate cannot be encoded as UTF-8; JSON in ASCII escapes it.
            return json.dumps(line, default=str)


@functools.lru_cache(1)
def _format_second(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def configure_logging(level: str = "INFO", *, stream: Any = None) -> None:
    """Send every log record of this process to `stream` (default: standard output) as JSON lines."""
    # The format has no code location and no thread, so their costly lookup is switched off.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
