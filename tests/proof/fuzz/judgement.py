"""What no answer may be or contain, whatever was sent."""

import re
from collections import Counter
from dataclasses import dataclass, field

import psutil

# Words of the database, of the driver, of Python, and of our own SQL.
_INTERNAL = re.compile(
    r"Traceback \(most recent|psycopg|sqlalchemy|SQLSTATE|\bLBUS\d|\bbus_[a-z_]+\(|pg_catalog|site-packages"
    r"|violates [a-z-]+ constraint|syntax error at or near|\.py\", line \d"
    r"|\bSELECT\b.+\bFROM\b|\bINSERT INTO\b|\bUPDATE\b.+\bSET\b"
)


class Violation(AssertionError):
    """An answer that must not be."""


@dataclass
class Tally:
    """Counts of answers by kind."""

    counts: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str) -> None:
        self.counts[kind] += 1


def check_text(text: str, sent: str, context: object) -> None:
    """Require that an answer contains no internals, except those that were sent."""
    match = _INTERNAL.search(text)
    if match is not None and match[0] not in sent:
        raise Violation(f"internals in an answer: {match[0]!r}: {context!r}")


def check_status(status: int, context: object) -> None:
    """Require that an answer is no server error. The documented 503 is counted by the caller."""
    if status >= 500 and status != 503:
        raise Violation(f"status {status}: {context!r}")


def resident_megabytes(pid: int | None = None) -> float:
    """Return the resident memory of a process, this one by default."""
    return float(psutil.Process(pid).memory_info().rss) / 1e6
