"""What was done in everybody's affairs, filtered and exported."""

from collections.abc import Sequence

from flask import Response, abort, render_template, request

from bus.db import Connection
from bus.errors import BusError
from bus.tenancy import audit, owners
from bus.tenancy.audit import Act, Filter
from webapp import audit_export
from webapp.audit_export import ActsForm
from webapp.blueprints import Entry, OperatorPages
from webapp.context import database, reading
from webapp.forms import PER_PAGE, asked_number, split, this_page, words

pages = OperatorPages("operator_audit", path="audit", tab=Entry("Audit", 60))


class EverybodysForm(ActsForm):
    """Which acts, and in whose affairs."""

    owner = words("In whose affairs", 254, description="A handle, or an e-mail address.")

    def asked_for(self, conn: Connection) -> tuple[int | None, Filter]:
        """The owner's id, or None for everybody, and the filter.

        Raises:
            BusError: a field makes no sense, or there is no such owner or project.
        """
        if not self.owner.data:
            return None, self.wanted(conn)
        found = owners.get(conn, self.owner.data)
        return found.id, self.wanted(conn, within=found.handle)


@pages.get("/")
def index() -> str:
    """Acts, newest first."""
    form, before, problem = EverybodysForm(request.args), asked_number("before"), None
    rows: Sequence[Act] = ()
    more = False
    try:
        with reading() as conn:
            owner_id, wanted = form.asked_for(conn)
            rows, more = split(audit.list_all(conn, wanted, owner_id=owner_id, before=before, limit=PER_PAGE + 1))
    except BusError as error:
        problem = error.message
    return render_template(
        "operator/audit.html",
        form=form,
        asked=audit_export.asked(),
        problem=problem,
        acts=rows,
        older=this_page(before=str(rows[-1].id)) if more else None,
        newest=this_page(before=None) if before else None,
    )


@pages.get("/export.<any(csv,jsonl):ending>")
def export(ending: str) -> Response:
    """The acts that the filters find, newest first: as a table, or as JSON, one on a line."""
    db = database()
    try:
        with reading() as conn:
            owner_id, wanted = EverybodysForm(request.args).asked_for(conn)

        def fetch(before: int | None) -> Sequence[Act]:
            with db.call() as conn:
                return audit.list_all(conn, wanted, owner_id=owner_id, before=before, limit=audit_export.BATCH)

        return audit_export.export(fetch, ending)
    except BusError as error:
        abort(400, error.message)
