"""Billing as the web shows it. Whether anything is billed is what the database says, not what this process was told."""

from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from flask import g

from bus.billing import credits, status
from bus.billing.credits import Price
from bus.db import Connection
from bus.errors import BusError
from webapp.auth import viewer
from webapp.context import connection, options

# What an agent does, where the type of its event does not say it to a person.
EVENT_LABELS = {
    "claim": "claiming a number",
    "seed": "setting a sequence",
    "post": "a handoff",
    "ack": "an acknowledgement",
    "lease": "a lease",
    "release": "releasing a lease",
    "task_create": "creating a task",
    "task_assign": "assigning a task",
    "task_start": "starting a task",
    "task_block": "blocking a task",
    "task_resolve": "resolving a blocker",
    "task_ship": "shipping a task",
    "register": "registering",
    "lease_expire": "a lease that runs out",
    "task_requeue": "a task that goes back",
    "presence_lapse": "somebody who is gone",
    "escalate": "an escalation",
}
# Many of them, as a heading of what was done.
EVENT_PLURAL_LABELS = {
    "claim": "numbers claimed",
    "seed": "sequences set",
    "post": "handoffs",
    "ack": "acknowledgements",
    "lease": "leases",
    "release": "leases released",
    "task_create": "tasks created",
    "task_assign": "tasks assigned",
    "task_start": "tasks started",
    "task_block": "tasks blocked",
    "task_resolve": "blockers resolved",
    "task_ship": "tasks shipped",
    "register": "registrations",
    "lease_expire": "leases that ran out",
    "task_requeue": "tasks that went back",
    "presence_lapse": "participants who went away",
    "escalate": "escalations",
}


@dataclass(frozen=True)
class PriceList:
    """What costs credits now, what is free, and what will hold later; `names` says them to people."""

    priced: list[Price]
    free: list[str]
    upcoming: list[Price]
    labels: dict[str, str]


def get_price_list(conn: Connection) -> PriceList:
    """The prices, as pages show them."""
    prices = credits.list_prices(conn)
    now = datetime.now(UTC)
    held = [price for price in prices if price.effective_from <= now]
    return PriceList(
        [price for price in held if price.credits],
        [price.event_type for price in held if not price.credits],
        sorted((price for price in prices if price.effective_from > now), key=lambda price: price.effective_from),
        EVENT_LABELS,
    )


def is_billing_enabled() -> bool:
    """Whether the service bills events at this moment."""
    return _get_billing_flags()[0]


def viewer_has_billing() -> bool:
    """Whether credits concern who is signed in: events are billed, or there is an account from when they were."""
    return _get_billing_flags()[1]


def top_up_url(handle: str) -> str | None:
    """Where this owner gets credits, if the service says so."""
    url = options().top_up_url
    # A handle has no character that an address would want written otherwise.
    return url and url.replace("{handle}", handle)


def _get_billing_flags() -> tuple[bool, bool]:
    """Asked once for each page; a page that says that the database is away says nothing of credits."""
    if "bus_billing" not in g:
        g.bus_billing = (False, False)
        if not g.get("bus_viewer_unknown"):
            try:
                owner = viewer()
                with connection() as conn:
                    g.bus_billing = status.get_billing_flags(conn, None if owner is None else owner.id)
            except (BusError, psycopg.Error):
                pass
    found: tuple[bool, bool] = g.bus_billing
    return found
