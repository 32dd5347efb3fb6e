"""Sequences: numbers that are given once each, and where they stand."""

from flask import Response, request

from bus.coordination import sequences
from webapp.blueprints import Entry, ProjectPages, current_project, render
from webapp.context import reading
from webapp.forms import caller, this_page

pages = ProjectPages("sequences", tab=Entry("Sequences", 40))

_PER_PAGE = 100


@pages.get("/")
def index() -> str | Response:
    """Every sequence by name, with its last claim and its next number."""
    ctx, after = caller(), request.args.get("after") or None
    with reading() as conn:
        found = sequences.list_(conn, ctx, before=after, limit=_PER_PAGE)
        # One page of all covers the same names: those without a claim are not among the claims.
        claims = sequences.list_latest_claims(conn, ctx, before=after, limit=_PER_PAGE)
    return render(
        "sequences/index.html",
        part="sequences/_list.html",
        project=current_project(),
        sequences=found.sequences,
        claims={claim.sequence: claim for claim in claims.sequences},
        here=this_page(),
        older=this_page(after=found.next_before) if found.next_before else None,
        newest=this_page(after=None) if after else None,
    )
