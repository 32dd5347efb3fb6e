"""What was done in the owner's affairs: by whom, when, to what."""

from collections.abc import Sequence

from flask import render_template, request

from bus.errors import BusError
from bus.tenancy import audit
from bus.tenancy.audit import AuditEntry
from webapp.audit_export import AuditFilterForm, query_filters
from webapp.auth import current_owner
from webapp.blueprints import NavItem, OwnerBlueprint
from webapp.context import connection
from webapp.forms import PAGE_SIZE, current_url, query_int, split_page

blueprint = OwnerBlueprint("audit", url_prefix="/admin/audit", nav_item=NavItem("Audit", 40))


@blueprint.get("/")
def index() -> str:
    """Acts, newest first."""
    before, form, owner = query_int("before"), AuditFilterForm(request.args), current_owner()
    problem: str | None = None
    rows: Sequence[AuditEntry] = ()
    more = False
    try:
        with connection() as conn:
            wanted = form.to_filter(conn, owner_handle=owner.handle)
            rows, more = split_page(audit.list_for_owner(conn, owner.id, wanted, before=before, limit=PAGE_SIZE + 1))
    except BusError as error:
        problem = error.message
    return render_template(
        "audit/index.html",
        form=form,
        filters=query_filters(),
        filter_error=problem,
        entries=rows,
        older=current_url(before=str(rows[-1].id)) if more else None,
        newest=current_url(before=None) if before else None,
    )
