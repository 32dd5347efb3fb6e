"""Leases: who edits what now, who is in whose way, and an end for one whose holder is stuck."""

from flask import Response, flash, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse

from bus import limits
from bus.coordination import leases
from bus.coordination.leases import Holders
from bus.errors import BusError
from bus.rules.lease_contention import contended
from bus.tenancy import humans
from webapp.blueprints import Entry, ProjectPages, current_project, render, see_other
from webapp.context import reading, refused_to, writing
from webapp.forms import ID, acted, asked_number, caller, this_page, words

pages = ProjectPages("leases", tab=Entry("Leases", 30))

_PER_PAGE = 40
# Whose way the shown ones are in is asked of so many of the newest.
_COMPARED = 200


class FilterForm(FlaskForm):  # type: ignore[misc]
    """Which leases to show."""

    class Meta:
        csrf = False

    surface = words("Path or glob", limits.SURFACE, description="Shows what overlaps it, such as src/api/.")


@pages.get("/")
def index() -> str | Response:
    """The live leases, newest first."""
    ctx, before, form = caller(), asked_number("before"), FilterForm(request.args)
    problem, found, others = None, Holders([], None, 0), Holders([], None, 0)
    try:
        with reading() as conn:
            found = leases.list_holders(conn, ctx, surface=form.surface.data, before=before, limit=_PER_PAGE)
            others = leases.list_holders(conn, ctx, limit=_COMPARED)
    except BusError as error:
        problem = error.message
    who = {one.fence: one for one in (*others.leases, *found.leases)}
    clashes = contended([(fence, one.surface, one.mode, one.actor) for fence, one in who.items()])
    return render(
        "leases/index.html",
        part="leases/_list.html",
        project=current_project(),
        form=form,
        problem=problem,
        leases=found.leases,
        clashes={fence: [who[other] for other in others] for fence, others in clashes.items()},
        here=this_page(),
        older=this_page(before=str(found.next_before)) if found.next_before else None,
        newest=this_page(before=None) if before else None,
    )


@pages.post(f"/<{ID}:fence>/release")
def release(fence: int) -> BaseResponse:
    """End the lease of somebody who is stuck; the ledger says who did it."""
    with refused_to(url_for(".index")), writing() as conn:
        done = humans.release(conn, caller(), fence)
    acted("leases")
    flash("The lease is released." if done else "That lease had ended already.", "success")
    return see_other(".index")
