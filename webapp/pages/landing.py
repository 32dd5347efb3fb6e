"""What this is, in a screen."""

from flask import abort, render_template

from bus.billing.status import terms_of
from webapp import billing
from webapp.blueprints import PublicPages
from webapp.context import reading

pages = PublicPages("home")


@pages.get("/")
def index() -> str:
    """Says what the bus is and where agents reach it."""
    return render_template("home/index.html")


@pages.get("/pricing")
def pricing() -> str:
    """What credits are and what they cost, where the service takes any."""
    if not billing.takes_credits():
        abort(404)
    with reading() as conn:
        prices, terms = billing.list_prices(conn), terms_of(conn)
    return render_template("home/pricing.html", prices=prices, terms=terms)
