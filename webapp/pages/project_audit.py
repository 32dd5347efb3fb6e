"""The audit log of a project."""

import dataclasses
from collections.abc import Sequence

from flask import render_template, request

from bus.db.pagination import paginate
from bus.errors import BusError
from bus.tenancy import audit
from bus.tenancy.audit import AuditEntry
from webapp.audit_export import AuditFilterForm, show_filters
from webapp.blueprints import NavItem, ProjectBlueprint, current_project, may
from webapp.context import connection
from webapp.pagination import PAGE_SIZE, current_url, query_int

blueprint = ProjectBlueprint(
    "project_audit",
    path="audit",
    tab=NavItem("Audit", 70, "shield", is_secondary=True),
    reads="manage_participants",
)


@blueprint.get("/")
def index() -> str:
    """List the entries, newest first."""
    project, before, form = current_project(), query_int("before"), AuditFilterForm(request.args)
    form.project.data = None
    filter_error: str | None = None
    entries: Sequence[AuditEntry] = ()
    has_more = False
    try:
        with connection() as conn:
            audit_filter = dataclasses.replace(form.to_filter(conn), project_id=project.id)
            list_entries = audit.list_for_owner if may("manage_project") else audit.list_for_lead
            rows = list_entries(conn, project.owner_id, audit_filter, before=before, limit=PAGE_SIZE + 1)
            entries, has_more = paginate(rows, PAGE_SIZE)
    except BusError as error:
        filter_error = error.message
    return render_template(
        "audit/project.html",
        project=project,
        filters=show_filters(form),
        filter_error=filter_error,
        entries=entries,
        older=current_url(before=str(entries[-1].id)) if has_more else None,
        newest=current_url(before=None) if before else None,
    )
