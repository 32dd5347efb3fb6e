"""A project at a glance: who is here, what is open, what happened last; and the way to the first agent."""

from flask import Response

from bus.coordination import dashboard, ledger
from bus.tenancy import grants
from bus.tenancy.grants import Member
from webapp.auth import current_owner
from webapp.blueprints import Entry, ProjectPages, current_project, render
from webapp.context import reading
from webapp.forms import PER_PAGE, caller

pages = ProjectPages("overview", path="", tab=Entry("Overview", 5))

_SHOWN = 12


@pages.get("/")
def index() -> str | Response:
    """The project now."""
    project, ctx = current_project(), caller()
    with reading() as conn:
        (card,) = dashboard.list_some(conn, current_owner().id, [project.id])
        found = grants.list_(conn, project.owner_id, project.id, limit=PER_PAGE)
        attention = dashboard.attention(conn, current_owner().id, project_id=project.id)
        events = ledger.query(conn, ctx, limit=_SHOWN).events
    return render(
        "overview/index.html",
        part="overview/_now.html",
        project=project,
        card=card,
        members=sorted((one for one in found if not one.is_owner), key=_by_presence)[:_SHOWN],
        attention=attention,
        events=events,
    )


def _by_presence(member: Member) -> tuple[bool, float]:
    """Who is here first, then who was here last."""
    return not member.active, -member.last_seen.timestamp() if member.last_seen else 0.0
