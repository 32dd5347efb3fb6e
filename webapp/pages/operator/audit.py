"""The audit log of all owners, filtered and exported."""

from collections.abc import Sequence

from flask import Response, abort, render_template, request

from bus.db import Connection
from bus.errors import BusError
from bus.tenancy import audit, owners
from bus.tenancy.audit import AuditEntry, AuditFilter
from webapp.audit_export import AuditFilterForm, export_entries, show_filters
from webapp.blueprints import NavItem, OperatorBlueprint
from webapp.context import connection, database
from webapp.csv_export import BATCH_SIZE
from webapp.forms import optional_text_field
from webapp.pagination import fetch_page

blueprint = OperatorBlueprint("operator_audit", path="audit", tab=NavItem("Audit", 60))


class AllOwnersAuditFilterForm(AuditFilterForm):
    """Filters of the audit log, including its owner."""

    owner = optional_text_field("Owner", 254, description="A handle or an email address.")

    def to_owner_and_filter(self, conn: Connection) -> tuple[int | None, AuditFilter]:
        """Convert the form.

        Returns:
            The owner's id, or None for all owners, and the filter.

        Raises:
            BusError: a field is invalid, or the owner or the project does not exist.
        """
        if not self.owner.data:
            return None, self.to_filter(conn)
        owner = owners.get(conn, self.owner.data)
        return owner.id, self.to_filter(conn, owner_handle=owner.handle)


@blueprint.get("/")
def index() -> str:
    """List the entries, newest first."""
    form = AllOwnersAuditFilterForm(request.args)

    def fetch(conn: Connection, before: int | None, limit: int) -> list[AuditEntry]:
        owner_id, audit_filter = form.to_owner_and_filter(conn)
        return audit.list_for_operator(conn, audit_filter, owner_id=owner_id, before=before, limit=limit)

    page = fetch_page(fetch)
    return render_template(
        "operator/audit.html",
        filters=show_filters(form),
        filter_error=page.filter_error,
        entries=page.rows,
        older=page.older,
        newest=page.newest,
    )


@blueprint.get("/export.<any(csv,jsonl):ending>")
def export(ending: str) -> Response:
    """Export the filtered entries, newest first."""
    db = database()
    try:
        with connection() as conn:
            owner_id, audit_filter = AllOwnersAuditFilterForm(request.args).to_owner_and_filter(conn)

        def fetch_batch(before: int | None) -> Sequence[AuditEntry]:
            with db.connection() as conn:
                return audit.list_for_operator(conn, audit_filter, owner_id=owner_id, before=before, limit=BATCH_SIZE)

        return export_entries(fetch_batch, ending)
    except BusError as error:
        abort(400, error.message)
