"""What was done in a project's affairs."""

import dataclasses
from collections.abc import Sequence

from flask import render_template, request

from bus.errors import BusError
from bus.tenancy import audit
from bus.tenancy.audit import Act
from webapp.audit_export import ActsForm, asked
from webapp.auth import current_owner
from webapp.blueprints import Entry, ProjectPages, current_project
from webapp.context import reading
from webapp.forms import PER_PAGE, asked_number, split, this_page

pages = ProjectPages("project_audit", path="audit", tab=Entry("Audit", 70))


@pages.get("/")
def index() -> str:
    """Acts, newest first."""
    project, before, form = current_project(), asked_number("before"), ActsForm(request.args)
    form.project.data = None
    problem: str | None = None
    rows: Sequence[Act] = ()
    more = False
    try:
        with reading() as conn:
            wanted = dataclasses.replace(form.wanted(conn), project_id=project.id)
            rows, more = split(audit.list_(conn, current_owner().id, wanted, before=before, limit=PER_PAGE + 1))
    except BusError as error:
        problem = error.message
    return render_template(
        "audit/project.html",
        project=project,
        form=form,
        asked=asked(),
        problem=problem,
        acts=rows,
        older=this_page(before=str(rows[-1].id)) if more else None,
        newest=this_page(before=None) if before else None,
    )
