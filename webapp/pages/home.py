"""What this is, in a screen."""

from flask import abort, render_template

from webapp.engine import options
from webapp.page import PublicPages

pages = PublicPages("home")


@pages.get("/")
def index() -> str:
    """Says what the bus is and where agents reach it."""
    return render_template("home/index.html")


@pages.get("/pricing")
def pricing() -> str:
    """What credits are and what they cost, where the service takes any."""
    if not options().metering:
        abort(404)
    return render_template("home/pricing.html")
