"""Leases: the active ones with their contention, and releasing one whose holder is stuck."""

from flask import Response, flash, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse

from bus import limits
from bus.coordination import leases
from bus.coordination.leases import LeasePage
from bus.errors import BusError
from bus.rules.lease_contention import find_contention
from webapp.blueprints import ID_CONVERTER, NavItem, ProjectBlueprint, current_project, render_page, requires, see_other
from webapp.caller import current_caller, record_activity
from webapp.context import connection, redirect_on_refusal, transaction
from webapp.forms import optional_text_field
from webapp.pagination import current_url, query_int

blueprint = ProjectBlueprint("leases", tab=NavItem("Leases", 62, "lock", is_secondary=True))

_PAGE_SIZE = 40
# The leases of a page are compared with this many of the newest ones.
_CONTENTION_WINDOW = 200


class FilterForm(FlaskForm):  # type: ignore[misc]
    """Filters of the list."""

    class Meta:
        """Filters are sent with GET and need no CSRF token."""

        csrf = False

    surface = optional_text_field(
        "Path or glob", limits.MAX_SURFACE_LENGTH, description="Shows what overlaps it, such as src/api/."
    )


@blueprint.get("/")
def index() -> str | Response:
    """List active leases, newest first."""
    ctx, before, form = current_caller(), query_int("before"), FilterForm(request.args)
    filter_error, page, newest = None, LeasePage([], None, 0), LeasePage([], None, 0)
    try:
        with connection() as conn:
            page = leases.list_leases(conn, ctx, surface=form.surface.data, before=before, limit=_PAGE_SIZE)
            newest = leases.list_leases(conn, ctx, limit=_CONTENTION_WINDOW)
    except BusError as error:
        filter_error = error.message
    by_fence = {lease.fence: lease for lease in (*newest.leases, *page.leases)}
    contention = find_contention([(lease.fence, lease.surface, lease.mode, lease.actor) for lease in by_fence.values()])
    return render_page(
        "leases/index.html",
        part="leases/_list.html",
        project=current_project(),
        form=form,
        filter_error=filter_error,
        leases=page.leases,
        contended_by={fence: [by_fence[other] for other in others] for fence, others in contention.items()},
        current_url=current_url(),
        older=current_url(before=str(page.next_before)) if page.next_before else None,
        newest=current_url(before=None) if before else None,
    )


@blueprint.post(f"/<{ID_CONVERTER}:fence>/release")
@requires("manage_participants")
def release(fence: int) -> BaseResponse:
    """Release the lease of another participant; the ledger records that the owner did it."""
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        was_active = leases.force_release(conn, current_caller(), fence)
    record_activity("leases")
    flash("Lease released." if was_active else "That lease had already ended.", "success")
    return see_other(".index")
