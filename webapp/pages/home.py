"""What this is, in a screen."""

from datetime import UTC, datetime

from flask import abort, render_template

from bus import credits
from webapp.engine import options, reading
from webapp.page import PublicPages

pages = PublicPages("home")

# What an agent does, where the type of its event does not say it to a person.
_NAMES = {
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


@pages.get("/")
def index() -> str:
    """Says what the bus is and where agents reach it."""
    return render_template("home/index.html")


@pages.get("/pricing")
def pricing() -> str:
    """What credits are and what they cost, where the service takes any."""
    if not options().metering:
        abort(404)
    with reading() as conn:
        prices = credits.list_prices(conn)
    now = datetime.now(UTC)
    held = [price for price in prices if price.effective_from <= now]
    return render_template(
        "home/pricing.html",
        costs=[price for price in held if price.credits],
        free=[price.event_type for price in held if not price.credits],
        coming=[price for price in prices if price.effective_from > now],
        names=_NAMES,
    )
