"""The audit log of a project."""

import dataclasses

from flask import render_template, request

from bus.db import Connection
from bus.tenancy import audit
from bus.tenancy.audit import AuditEntry
from webapp.audit_export import AuditFilterForm, show_filters
from webapp.blueprints import NavItem, ProjectBlueprint, current_project, may
from webapp.pagination import fetch_page

blueprint = ProjectBlueprint(
    "project_audit",
    path="audit",
    tab=NavItem("Audit", 70, "shield", is_secondary=True),
    reads="manage_participants",
)


@blueprint.get("/")
def index() -> str:
    """List the entries, newest first."""
    project, form = current_project(), AuditFilterForm(request.args)
    form.project.data = None
    list_entries = audit.list_for_owner if may("manage_project") else audit.list_for_lead

    def fetch(conn: Connection, before: int | None, limit: int) -> list[AuditEntry]:
        audit_filter = dataclasses.replace(form.to_filter(conn), project_id=project.id)
        return list_entries(conn, project.owner_id, audit_filter, before=before, limit=limit)

    page = fetch_page(fetch)
    return render_template(
        "audit/project.html",
        project=project,
        filters=show_filters(form),
        filter_error=page.filter_error,
        entries=page.rows,
        older=page.older,
        newest=page.newest,
    )
