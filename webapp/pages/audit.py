"""What was done in the owner's affairs: by whom, when, to what."""

from collections.abc import Sequence

from flask import render_template, request

from bus.errors import BusError
from bus.tenancy import audit
from bus.tenancy.audit import Act
from webapp.audit_export import ActsForm, asked
from webapp.auth import current_owner
from webapp.blueprints import Entry, Pages
from webapp.context import reading
from webapp.forms import PER_PAGE, asked_number, split, this_page

pages = Pages("audit", prefix="/admin/audit", entry=Entry("Audit", 40))


@pages.get("/")
def index() -> str:
    """Acts, newest first."""
    before, form, owner = asked_number("before"), ActsForm(request.args), current_owner()
    problem: str | None = None
    rows: Sequence[Act] = ()
    more = False
    try:
        with reading() as conn:
            wanted = form.wanted(conn, within=owner.handle)
            rows, more = split(audit.list_(conn, owner.id, wanted, before=before, limit=PER_PAGE + 1))
    except BusError as error:
        problem = error.message
    return render_template(
        "audit/index.html",
        form=form,
        asked=asked(),
        problem=problem,
        acts=rows,
        older=this_page(before=str(rows[-1].id)) if more else None,
        newest=this_page(before=None) if before else None,
    )
