"""What was done in everybody's affairs, filtered and exported."""

from collections.abc import Sequence

from flask import Response, abort, render_template, request

from bus.db import Connection
from bus.errors import BusError
from bus.tenancy import audit, owners
from bus.tenancy.audit import AuditEntry, AuditFilter
from webapp import audit_export
from webapp.audit_export import AuditFilterForm
from webapp.blueprints import NavItem, OperatorBlueprint
from webapp.context import connection, database
from webapp.forms import PAGE_SIZE, current_url, optional_text_field, query_int, split_page

blueprint = OperatorBlueprint("operator_audit", path="audit", tab=NavItem("Audit", 60))


class AllOwnersAuditFilterForm(AuditFilterForm):
    """Which acts, and in whose affairs."""

    owner = optional_text_field("In whose affairs", 254, description="A handle, or an e-mail address.")

    def to_owner_and_filter(self, conn: Connection) -> tuple[int | None, AuditFilter]:
        """The owner's id, or None for everybody, and the filter.

        Raises:
            BusError: a field makes no sense, or there is no such owner or project.
        """
        if not self.owner.data:
            return None, self.to_filter(conn)
        found = owners.get(conn, self.owner.data)
        return found.id, self.to_filter(conn, owner_handle=found.handle)


@blueprint.get("/")
def index() -> str:
    """Acts, newest first."""
    form, before, problem = AllOwnersAuditFilterForm(request.args), query_int("before"), None
    rows: Sequence[AuditEntry] = ()
    more = False
    try:
        with connection() as conn:
            owner_id, wanted = form.to_owner_and_filter(conn)
            rows, more = split_page(
                audit.list_for_operator(conn, wanted, owner_id=owner_id, before=before, limit=PAGE_SIZE + 1)
            )
    except BusError as error:
        problem = error.message
    return render_template(
        "operator/audit.html",
        form=form,
        asked=audit_export.query_filters(),
        problem=problem,
        acts=rows,
        older=current_url(before=str(rows[-1].id)) if more else None,
        newest=current_url(before=None) if before else None,
    )


@blueprint.get("/export.<any(csv,jsonl):ending>")
def export(ending: str) -> Response:
    """The acts that the filters find, newest first: as a table, or as JSON, one on a line."""
    db = database()
    try:
        with connection() as conn:
            owner_id, wanted = AllOwnersAuditFilterForm(request.args).to_owner_and_filter(conn)

        def fetch(before: int | None) -> Sequence[AuditEntry]:
            with db.connection() as conn:
                return audit.list_for_operator(
                    conn, wanted, owner_id=owner_id, before=before, limit=audit_export.BATCH_SIZE
                )

        return audit_export.export_acts(fetch, ending)
    except BusError as error:
        abort(400, error.message)
