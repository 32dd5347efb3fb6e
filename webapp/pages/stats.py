"""How much the service as a whole has seen, for whoever wants to show it; off unless it was switched on."""

from flask import Response, jsonify
from werkzeug.exceptions import NotFound

from bus.analytics import service_totals
from webapp.blueprints import PublicBlueprint, api_view
from webapp.context import options, transaction

blueprint = PublicBlueprint("stats")


@blueprint.get("/api/stats")
@api_view
def index() -> Response:
    """Service-wide counts, at most a minute old or so. Nothing in them is about anybody in particular."""
    if not options().public_stats:
        raise NotFound
    with transaction() as conn:
        counts = service_totals.get_stats(conn)
    answer = jsonify(counts)
    answer.headers["Cache-Control"] = "public, max-age=60"
    return answer
