"""The audit log of the owner's account."""

from flask import render_template, request

from bus.db import Connection
from bus.tenancy import audit
from bus.tenancy.audit import AuditEntry
from webapp.audit_export import AuditFilterForm, show_filters
from webapp.auth import current_owner
from webapp.blueprints import NavItem, OwnerBlueprint
from webapp.pagination import fetch_page

blueprint = OwnerBlueprint(
    "audit", url_prefix="/admin/audit", nav_item=NavItem("Audit", 40, "shield", is_secondary=True)
)


@blueprint.get("/")
def index() -> str:
    """List the entries, newest first."""
    form, owner = AuditFilterForm(request.args), current_owner()

    def fetch(conn: Connection, before: int | None, limit: int) -> list[AuditEntry]:
        audit_filter = form.to_filter(conn, owner_handle=owner.handle)
        return audit.list_for_owner(conn, owner.id, audit_filter, before=before, limit=limit)

    page = fetch_page(fetch)
    return render_template(
        "audit/index.html",
        filters=show_filters(form),
        filter_error=page.filter_error,
        entries=page.rows,
        older=page.older,
        newest=page.newest,
    )
