"""A project at a glance: who is here, what is open, what happened last; and the way to the first agent."""

from flask import Response

from bus.coordination import dashboard, ledger
from bus.tenancy import participant_queries
from bus.tenancy.participant_queries import ParticipationDetail
from webapp.auth import current_owner
from webapp.blueprints import NavItem, ProjectBlueprint, current_project, render_page
from webapp.context import connection
from webapp.forms import PAGE_SIZE, current_caller

blueprint = ProjectBlueprint("overview", path="", tab=NavItem("Overview", 5))

_MAX_ITEMS = 12


@blueprint.get("/")
def index() -> str | Response:
    """The project now."""
    project, ctx = current_project(), current_caller()
    with connection() as conn:
        (card,) = dashboard.list_by_id(conn, current_owner().id, [project.id])
        found = participant_queries.list_participation_details(conn, project.owner_id, project.id, limit=PAGE_SIZE)
        attention = dashboard.list_attention_items(conn, current_owner().id, project_id=project.id)
        events = ledger.query_events(conn, ctx, limit=_MAX_ITEMS).events
    return render_page(
        "overview/index.html",
        part="overview/_live.html",
        project=project,
        project_summary=card,
        participations=sorted((one for one in found if not one.is_owner), key=_presence_sort_key)[:_MAX_ITEMS],
        attention=attention,
        events=events,
    )


def _presence_sort_key(participation: ParticipationDetail) -> tuple[bool, float]:
    """Who is here first, then who was here last."""
    return not participation.is_active, -participation.last_seen.timestamp() if participation.last_seen else 0.0
