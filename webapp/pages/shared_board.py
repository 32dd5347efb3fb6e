"""The live board of a project for viewers of a share link: without an account, read-only, and without links.

The token in the address is the only right. Every request checks it again, and streams twice a second.
Source: docs/explanation/authority.md
"""

from flask import Response, make_response
from werkzeug.exceptions import NotFound

from bus.tenancy import memberships, participant_queries, share_links
from webapp import identity
from webapp.blueprints import PublicBlueprint, no_store
from webapp.board_views import render_board
from webapp.context import connection, options
from webapp.ratelimit import client_address, enforce_rate_limit

blueprint = PublicBlueprint("shared_board", url_prefix="/shared")


@blueprint.get("/<share_token>/")
@no_store
def show(share_token: str) -> Response:
    """Show the board; answer polls of the script with its content alone, or 304 if it has not changed."""
    shared = _find_or_404(share_token)
    with connection() as conn:
        people = participant_queries.list_people(conn, shared.project_id)
        has_several_owners = memberships.has_acting_members(conn, shared.project_id)
    identity.set_page_context(shared.owner, frozenset(people), has_several_owners=has_several_owners)
    response = make_response(
        render_board(
            "shared_board/show.html",
            shared.project_id,
            is_shared=True,
            shared=shared,
            share_token=share_token,
            project={"id": shared.project_id},
        )
    )
    response.headers["X-Robots-Tag"] = "noindex, nofollow"
    return response


@blueprint.get("/<share_token>/stream")
def stream(share_token: str) -> tuple[str, int]:
    """Decline a stream; requests that webapp/streams.py serves do not arrive here."""
    _find_or_404(share_token)
    return "", 204


def _find_or_404(share_token: str) -> share_links.SharedBoard:
    enforce_rate_limit("shared-board", client_address(), options().shared_board_per_minute)
    with connection() as conn:
        shared = share_links.find_shared_board(conn, share_token)
    if shared is None:
        raise NotFound("This share link has expired or was revoked. Ask its sender for another.")
    return shared
