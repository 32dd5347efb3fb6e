"""Public totals of the service; disabled unless PUBLIC_STATS is set."""

from flask import Response, jsonify
from werkzeug.exceptions import NotFound

from bus.analytics import service_totals
from webapp.blueprints import PublicBlueprint, api_view
from webapp.context import options, transaction

blueprint = PublicBlueprint("stats")


@blueprint.get("/api/stats")
@api_view
def index() -> Response:
    """Return service-wide counts, about a minute old at most; none of them is about a single owner."""
    if not options().public_stats:
        raise NotFound
    with transaction() as conn:
        counts = service_totals.get_stats(conn)
    response = jsonify(counts)
    response.headers["Cache-Control"] = "public, max-age=60"
    return response
