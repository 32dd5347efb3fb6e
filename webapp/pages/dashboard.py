"""The owner's dashboard: recently active projects, and what needs attention in all of them."""

from flask import Response

from bus.coordination import dashboard
from webapp.auth import current_owner
from webapp.blueprints import NavItem, OwnerBlueprint, render_page
from webapp.context import connection

blueprint = OwnerBlueprint("dashboard", url_prefix="/admin", nav_item=NavItem("Dashboard", 10))


@blueprint.get("/")
def index() -> str | Response:
    """Show the dashboard."""
    owner = current_owner()
    with connection() as conn:
        projects = dashboard.list_recently_active(conn, owner.id)
        attention = dashboard.list_attention_items(conn, owner.id)
    return render_page("dashboard/index.html", part="dashboard/_live.html", projects=projects, attention=attention)
