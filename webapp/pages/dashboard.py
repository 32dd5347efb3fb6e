"""Where an owner arrives: the projects, and what needs attention."""

from flask import render_template

from bus import projects
from webapp.engine import reading
from webapp.page import Entry, Pages
from webapp.visitors import current_owner

pages = Pages("dashboard", prefix="/admin", entry=Entry("Projects", 10))


@pages.get("/")
def index() -> str:
    """The owner's projects."""
    with reading() as conn:
        found = projects.list_(conn, owner_id=current_owner().id)
    return render_template("dashboard/index.html", projects=found)
