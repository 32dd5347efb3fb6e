"""What was done in a project's affairs."""

import dataclasses
from collections.abc import Sequence

from flask import render_template, request

from bus.errors import BusError
from bus.tenancy import audit
from bus.tenancy.audit import AuditEntry
from webapp.audit_export import AuditFilterForm, query_filters
from webapp.auth import current_owner
from webapp.blueprints import NavItem, ProjectBlueprint, current_project
from webapp.context import connection
from webapp.forms import PAGE_SIZE, current_url, query_int, split_page

blueprint = ProjectBlueprint("project_audit", path="audit", tab=NavItem("Audit", 70))


@blueprint.get("/")
def index() -> str:
    """Acts, newest first."""
    project, before, form = current_project(), query_int("before"), AuditFilterForm(request.args)
    form.project.data = None
    problem: str | None = None
    rows: Sequence[AuditEntry] = ()
    more = False
    try:
        with connection() as conn:
            wanted = dataclasses.replace(form.to_filter(conn), project_id=project.id)
            rows, more = split_page(
                audit.list_for_owner(conn, current_owner().id, wanted, before=before, limit=PAGE_SIZE + 1)
            )
    except BusError as error:
        problem = error.message
    return render_template(
        "audit/project.html",
        project=project,
        form=form,
        filters=query_filters(),
        filter_error=problem,
        entries=rows,
        older=current_url(before=str(rows[-1].id)) if more else None,
        newest=current_url(before=None) if before else None,
    )
