"""What was done in the owner's affairs: by whom, when, to what."""

from flask import render_template

from bus import audit
from webapp.desk import PER_PAGE, asked_number, split, this_page
from webapp.engine import reading
from webapp.page import Entry, Pages
from webapp.visitors import current_owner

pages = Pages("audit", prefix="/admin/audit", entry=Entry("Audit", 40))


@pages.get("/")
def index() -> str:
    """Every act, newest first."""
    before = asked_number("before")
    with reading() as conn:
        rows, more = split(audit.list_(conn, current_owner().id, before=before, limit=PER_PAGE + 1))
    return render_template(
        "audit/index.html",
        acts=rows,
        older=this_page(before=str(rows[-1].id)) if more else None,
        newest=this_page(before=None) if before else None,
    )
