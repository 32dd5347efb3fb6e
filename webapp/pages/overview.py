"""The overview of a project: team, attention items, recent activity; and the steps to the first agent."""

from flask import Response

from bus.coordination import conversations, dashboard, ledger
from bus.tenancy import participant_queries
from bus.tenancy.participant_queries import ParticipationDetail
from webapp.auth import current_owner
from webapp.blueprints import NavItem, ProjectBlueprint, current_project, render_page
from webapp.caller import current_caller
from webapp.context import connection
from webapp.event_runs import find_titled_posts
from webapp.pagination import PAGE_SIZE

blueprint = ProjectBlueprint("overview", path="", tab=NavItem("Overview", 55, "layout-grid", is_secondary=True))

_MAX_ITEMS = 12


@blueprint.get("/")
def index() -> str | Response:
    """Show the overview."""
    project, ctx = current_project(), current_caller()
    with connection() as conn:
        (project_summary,) = dashboard.list_by_id(conn, current_owner().id, [project.id])
        details = participant_queries.list_participation_details(conn, project.owner_id, project.id, limit=PAGE_SIZE)
        attention = dashboard.list_attention_items(conn, current_owner().id, project_id=project.id)
        events = ledger.query_events(conn, ctx, limit=_MAX_ITEMS).events
        titles = conversations.get_titles(conn, ctx, find_titled_posts(events))
    participations = sorted((detail for detail in details if not detail.is_owner), key=_presence_sort_key)
    return render_page(
        "overview/index.html",
        part="overview/_live.html",
        project=project,
        project_summary=project_summary,
        participations=participations[:_MAX_ITEMS],
        attention=attention,
        events=events,
        titles=titles,
    )


def _presence_sort_key(participation: ParticipationDetail) -> tuple[bool, float]:
    """Active participants first, then the most recently seen."""
    return not participation.is_active, -participation.last_seen.timestamp() if participation.last_seen else 0.0
