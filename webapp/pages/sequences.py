"""Sequences: numbers that are given once each, and where they stand."""

from flask import Response, request

from bus.coordination import sequences
from webapp.blueprints import NavItem, ProjectBlueprint, current_project, render_page
from webapp.context import connection
from webapp.forms import current_caller, current_url

blueprint = ProjectBlueprint("sequences", tab=NavItem("Sequences", 40))

_PAGE_SIZE = 100


@blueprint.get("/")
def index() -> str | Response:
    """Every sequence by name, with its last claim and its next number."""
    ctx, after = current_caller(), request.args.get("after") or None
    with connection() as conn:
        found = sequences.list_sequences(conn, ctx, before=after, limit=_PAGE_SIZE)
        # One page of all covers the same names: those without a claim are not among the claims.
        claims = sequences.list_latest_claims(conn, ctx, before=after, limit=_PAGE_SIZE)
    return render_page(
        "sequences/index.html",
        part="sequences/_list.html",
        project=current_project(),
        sequences=found.sequences,
        claims={claim.sequence: claim for claim in claims.sequences},
        current_url=current_url(),
        older=current_url(after=found.next_before) if found.next_before else None,
        newest=current_url(after=None) if after else None,
    )
