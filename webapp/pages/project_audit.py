"""What was done in a project's affairs."""

from flask import render_template

from bus import audit
from webapp.desk import PER_PAGE, asked_number, split, this_page
from webapp.engine import reading
from webapp.page import Entry, ProjectPages, current_project
from webapp.visitors import current_owner

pages = ProjectPages("project_audit", path="audit", tab=Entry("Audit", 70))


@pages.get("/")
def index() -> str:
    """Every act, newest first."""
    project, before = current_project(), asked_number("before")
    with reading() as conn:
        rows, more = split(
            audit.list_(conn, current_owner().id, project_id=project.id, before=before, limit=PER_PAGE + 1)
        )
    return render_template(
        "audit/project.html",
        project=project,
        acts=rows,
        older=this_page(before=str(rows[-1].id)) if more else None,
        newest=this_page(before=None) if before else None,
    )
