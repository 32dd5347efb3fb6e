"""Structured logs: one JSON object per line on standard output, the same in every process."""

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

# What every line that is written meanwhile belongs to: the name of a field and its value, as ("request_id", "…").
log_context: ContextVar[tuple[str, str] | None] = ContextVar("belongs_to", default=None)

REQUEST_ID = "request_id"
# What may stand in a header and in a log without harm: the token characters of HTTP.
_ID_PATTERN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
# Together unique: this process, and the number of the request in it.
_PROCESS_PREFIX = secrets.token_hex(6)
_sequence_numbers = itertools.count(1)


def new_correlation_id() -> str:
    """An id for a request or a run that brought none."""
    return f"{_PROCESS_PREFIX}-{next(_sequence_numbers):x}"


def accept_correlation_id(header_value: str | None) -> str:
    """The id that a request brought, if it is one; else a new one."""
    return header_value if header_value is not None and _ID_PATTERN.fullmatch(header_value) else new_correlation_id()


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON; `extra={"fields": {…}}` adds fields of its own."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": f"{_format_second(int(record.created))}.{int(record.created % 1 * 1000):03d}+00:00",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        about = log_context.get()
        if about is not None:
            line[about[0]] = about[1]
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return _encoder.encode(line).decode()
        except UnicodeEncodeError:
            # Half of a surrogate pair, which no UTF-8 can carry: a line that says it in ASCII is better than none.
            return json.dumps(line, default=str)


@functools.lru_cache(1)
def _format_second(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def configure_logging(level: str = "INFO", *, stream: Any = None) -> None:
    """Send every log record of this process to `stream` (default: standard output) as JSON lines."""
    # Nothing here prints where in the code a line came from or which thread it was, so nobody looks it up.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
