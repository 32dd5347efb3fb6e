"""How much the service as a whole has seen, for whoever wants to show it; off unless it was switched on."""

from flask import Response, jsonify
from werkzeug.exceptions import NotFound

from bus.analytics import service_totals
from webapp.blueprints import PublicPages, machine
from webapp.context import options, writing

pages = PublicPages("stats")


@pages.get("/api/stats")
@machine
def index() -> Response:
    """Service-wide counts, at most a minute old or so. Nothing in them is about anybody in particular."""
    if not options().stats:
        raise NotFound
    with writing() as conn:
        counts = service_totals.read(conn)
    answer = jsonify(counts)
    answer.headers["Cache-Control"] = "public, max-age=60"
    return answer
