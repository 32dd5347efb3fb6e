"""A project at a glance: who is here, what is open, what happened last; and the way to the first agent."""

from flask import Response

from bus import dashboard, grants, ledger
from webapp.desk import caller
from webapp.engine import reading
from webapp.page import Entry, ProjectPages, current_project, render
from webapp.visitors import current_owner

pages = ProjectPages("overview", path="", tab=Entry("Overview", 5))

_SHOWN = 12


@pages.get("/")
def index() -> str | Response:
    """The project now."""
    project, ctx = current_project(), caller()
    with reading() as conn:
        (card,) = dashboard.list_some(conn, current_owner().id, [project.id])
        found = grants.list_(conn, project.owner_id, project.id, limit=_SHOWN + 1)
        attention = dashboard.attention(conn, current_owner().id, project_id=project.id)
        events = ledger.query(conn, ctx, limit=_SHOWN).events
    return render(
        "overview/index.html",
        part="overview/_now.html",
        project=project,
        card=card,
        members=[one for one in found if not one.is_owner][:_SHOWN],
        attention=attention,
        events=events,
    )
