"""Timestamps inside JSON of the SQL functions: milliseconds since 1970 (bus_epoch_milliseconds)."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def from_epoch_milliseconds(milliseconds: int) -> datetime:
    """Convert milliseconds since 1970 to an aware UTC datetime; a float would lose the last digit."""
    return _EPOCH + timedelta(milliseconds=milliseconds)
