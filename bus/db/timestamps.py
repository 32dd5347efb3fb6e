"""Timestamps as the SQL functions send them inside JSON: milliseconds since 1970 (bus_epoch_milliseconds)."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def from_epoch_milliseconds(milliseconds: int) -> datetime:
    """Convert without a float, whose rounding would lose the last digit."""
    return _EPOCH + timedelta(milliseconds=milliseconds)
