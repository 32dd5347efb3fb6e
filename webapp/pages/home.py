"""What this is, in a screen."""

from flask import Blueprint, current_app, render_template

pages = Blueprint("home", __name__)


@pages.get("/")
def index() -> str:
    """Says what the bus is and where agents reach it."""
    return render_template("home/index.html", mcp_url=current_app.extensions["bus.addresses"].mcp)
