"""Prices of event types in credits: each from a moment on; past events keep theirs.

Source: docs/decisions/0014-metering.md
"""

from dataclasses import dataclass
from datetime import datetime

from bus.billing.credits import lock_metering_exclusive
from bus.db import Connection
from bus.errors import InvalidArgument
from bus.rules import validation
from bus.rules.enums import EVENT_TYPES
from bus.tenancy import audit


@dataclass(frozen=True, slots=True)
class Price:
    """Price of an event type from a moment on."""

    event_type: str
    credits: int
    effective_from: datetime


def list_prices(conn: Connection) -> list[Price]:
    """Return the current and the future prices, by event type and time."""
    return conn.fetch_all_as(
        Price,
        "SELECT p.event_type, p.credits, p.effective_from FROM price p WHERE p.effective_from >= ("
        "  SELECT max(past.effective_from) FROM price past"
        "  WHERE past.event_type = p.event_type AND past.effective_from <= clock_timestamp())"
        " ORDER BY p.event_type, p.effective_from",
    )


def set_price(
    conn: Connection, event_type: str, amount: int, *, effective_from: datetime | None = None, actor: str
) -> Price:
    """Set the price of an event type from now or from a future time on. Past events keep their prices.

    Events are timed in whole milliseconds, so one right after the change may still have the previous price.

    The audit log records it without an owner, as an act of the service.

    Args:
        amount: 0 to 1,000,000 credits.
        effective_from: in the future; None is now.
    Locks: the table `metering`, exclusively, so that no concurrent debit uses the previous price.
    """
    if event_type not in EVENT_TYPES:
        raise InvalidArgument(f"The type must be one of: {', '.join(EVENT_TYPES)}.")
    validation.integer(amount, "credits", 0, 1_000_000)
    lock_metering_exclusive(conn)
    price = conn.fetch_one_or_none_as(
        Price,
        "INSERT INTO price (event_type, effective_from, credits)"
        " SELECT %(type)s, t.at, %(credits)s FROM (SELECT coalesce(%(at)s::timestamptz, clock_timestamp()) AS at) AS t"
        " WHERE %(at)s::timestamptz IS NULL OR t.at > clock_timestamp()"
        " ON CONFLICT ON CONSTRAINT price_pkey DO UPDATE SET credits = excluded.credits"
        " RETURNING event_type, credits, effective_from",
        {"type": event_type, "credits": amount, "at": effective_from},
    )
    if price is None:
        raise InvalidArgument("A price starts now or in the future; past events keep their prices.")
    audit.record(
        conn, None, actor, "credit.price", event_type, credits=amount, effective_from=price.effective_from.isoformat()
    )
    return price
