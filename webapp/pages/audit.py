"""The audit log of the owner's account."""

from collections.abc import Sequence

from flask import render_template, request

from bus.db.pagination import paginate
from bus.errors import BusError
from bus.tenancy import audit
from bus.tenancy.audit import AuditEntry
from webapp.audit_export import AuditFilterForm, show_filters
from webapp.auth import current_owner
from webapp.blueprints import NavItem, OwnerBlueprint
from webapp.context import connection
from webapp.pagination import PAGE_SIZE, current_url, query_int

blueprint = OwnerBlueprint(
    "audit", url_prefix="/admin/audit", nav_item=NavItem("Audit", 40, "shield", is_secondary=True)
)


@blueprint.get("/")
def index() -> str:
    """List the entries, newest first."""
    before, form, owner = query_int("before"), AuditFilterForm(request.args), current_owner()
    filter_error: str | None = None
    entries: Sequence[AuditEntry] = ()
    has_more = False
    try:
        with connection() as conn:
            audit_filter = form.to_filter(conn, owner_handle=owner.handle)
            rows = audit.list_for_owner(conn, owner.id, audit_filter, before=before, limit=PAGE_SIZE + 1)
            entries, has_more = paginate(rows, PAGE_SIZE)
    except BusError as error:
        filter_error = error.message
    return render_template(
        "audit/index.html",
        filters=show_filters(form),
        filter_error=filter_error,
        entries=entries,
        older=current_url(before=str(entries[-1].id)) if has_more else None,
        newest=current_url(before=None) if before else None,
    )
