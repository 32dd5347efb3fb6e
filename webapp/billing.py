"""Billing in the interface. The database, not this process's settings, decides whether events are billed."""

from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from flask import g

from bus.billing import prices, status
from bus.billing.prices import Price
from bus.db import Connection
from bus.errors import BusError
from webapp.auth import viewer
from webapp.context import connection, options
from webapp.event_labels import EVENT_ACTIONS


@dataclass(frozen=True)
class PriceList:
    """The prices of events.

    Attributes:
        priced: events that cost credits now.
        free: types of events that are free now.
        upcoming: prices that take effect later, the next one first.
        labels: names of the types of events.
    """

    priced: list[Price]
    free: list[str]
    upcoming: list[Price]
    labels: dict[str, str]


def get_price_list(conn: Connection) -> PriceList:
    """Return the prices, current and upcoming."""
    listed = prices.list_prices(conn)
    now = datetime.now(UTC)
    current = [price for price in listed if price.effective_from <= now]
    return PriceList(
        [price for price in current if price.credits],
        [price.event_type for price in current if not price.credits],
        sorted((price for price in listed if price.effective_from > now), key=lambda price: price.effective_from),
        EVENT_ACTIONS,
    )


def is_billing_enabled() -> bool:
    """Whether the service bills events now."""
    return _get_billing_flags()[0]


def viewer_has_billing() -> bool:
    """Whether to show credits to the viewer: events are billed, or there is an account from when they were."""
    return _get_billing_flags()[1]


def top_up_url(handle: str) -> str | None:
    """The address where this owner buys credits, if the service has one."""
    url = options().top_up_url
    # A handle has no character that needs escaping in a URL.
    return url and url.replace("{handle}", handle)


def _get_billing_flags() -> tuple[bool, bool]:
    """Read the flags once per request; both are False while the database does not answer."""
    if "bus_billing" not in g:
        g.bus_billing = (False, False)
        if not g.get("bus_viewer_unknown"):
            try:
                owner = viewer()
                with connection() as conn:
                    g.bus_billing = status.get_billing_flags(conn, None if owner is None else owner.id)
            except (BusError, psycopg.Error):
                pass
    flags: tuple[bool, bool] = g.bus_billing
    return flags
