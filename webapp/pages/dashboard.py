"""Where an owner arrives: the projects that are alive, and what needs attention."""

from flask import Response

from bus.coordination import dashboard
from webapp.auth import current_owner
from webapp.blueprints import Entry, Pages, render
from webapp.context import reading

pages = Pages("dashboard", prefix="/admin", entry=Entry("Dashboard", 10))


@pages.get("/")
def index() -> str | Response:
    """What is going on, in all projects of the owner."""
    owner = current_owner()
    with reading() as conn:
        found = dashboard.list_recent(conn, owner.id)
        attention = dashboard.attention(conn, owner.id)
    return render("dashboard/index.html", part="dashboard/_now.html", projects=found, attention=attention)
