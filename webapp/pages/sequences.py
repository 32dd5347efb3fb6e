"""The sequences of a project, with their latest claims."""

from flask import Response, request

from bus.coordination import sequences
from webapp.blueprints import NavItem, ProjectBlueprint, current_project, render_page
from webapp.caller import current_caller
from webapp.context import connection
from webapp.pagination import current_url

blueprint = ProjectBlueprint("sequences", tab=NavItem("Sequences", 63, "hash", is_secondary=True))

_PAGE_SIZE = 100


@blueprint.get("/")
def index() -> str | Response:
    """List the sequences by name, each with its latest claim and its next number."""
    ctx, after = current_caller(), request.args.get("after") or None
    with connection() as conn:
        page = sequences.list_sequences(conn, ctx, before=after, limit=_PAGE_SIZE)
        # The same page: it covers the same names, and sequences without a claim are missing from the claims.
        claims = sequences.list_latest_claims(conn, ctx, before=after, limit=_PAGE_SIZE)
    return render_page(
        "sequences/index.html",
        part="sequences/_list.html",
        project=current_project(),
        sequences=page.sequences,
        claims={claim.sequence: claim for claim in claims.sequences},
        current_url=current_url(),
        older=current_url(after=page.next_before) if page.next_before else None,
        newest=current_url(after=None) if after else None,
    )
