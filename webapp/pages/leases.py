"""Leases: who edits what now, who is in whose way, and an end for one whose holder is stuck."""

from flask import Response, flash, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse

from bus import limits
from bus.coordination import leases
from bus.coordination.leases import LeasePage
from bus.errors import BusError
from bus.rules.lease_contention import find_contention
from webapp.blueprints import NavItem, ProjectBlueprint, current_project, render_page, see_other
from webapp.context import connection, redirect_on_refusal, transaction
from webapp.forms import ID_CONVERTER, current_caller, current_url, optional_text_field, query_int, record_activity

blueprint = ProjectBlueprint("leases", tab=NavItem("Leases", 30))

_PAGE_SIZE = 40
# Whose way the shown ones are in is asked of so many of the newest.
_CONTENTION_WINDOW = 200


class FilterForm(FlaskForm):  # type: ignore[misc]
    """Which leases to show."""

    class Meta:
        csrf = False

    surface = optional_text_field(
        "Path or glob", limits.MAX_SURFACE_LENGTH, description="Shows what overlaps it, such as src/api/."
    )


@blueprint.get("/")
def index() -> str | Response:
    """The live leases, newest first."""
    ctx, before, form = current_caller(), query_int("before"), FilterForm(request.args)
    problem, found, others = None, LeasePage([], None, 0), LeasePage([], None, 0)
    try:
        with connection() as conn:
            found = leases.list_leases(conn, ctx, surface=form.surface.data, before=before, limit=_PAGE_SIZE)
            others = leases.list_leases(conn, ctx, limit=_CONTENTION_WINDOW)
    except BusError as error:
        problem = error.message
    who = {one.fence: one for one in (*others.leases, *found.leases)}
    clashes = find_contention([(fence, one.surface, one.mode, one.actor) for fence, one in who.items()])
    return render_page(
        "leases/index.html",
        part="leases/_list.html",
        project=current_project(),
        form=form,
        filter_error=problem,
        leases=found.leases,
        contended_by={fence: [who[other] for other in others] for fence, others in clashes.items()},
        current_url=current_url(),
        older=current_url(before=str(found.next_before)) if found.next_before else None,
        newest=current_url(before=None) if before else None,
    )


@blueprint.post(f"/<{ID_CONVERTER}:fence>/release")
def release(fence: int) -> BaseResponse:
    """End the lease of somebody who is stuck; the ledger says who did it."""
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        done = leases.force_release(conn, current_caller(), fence)
    record_activity("leases")
    flash("The lease is released." if done else "That lease had ended already.", "success")
    return see_other(".index")
