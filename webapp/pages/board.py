"""The live board of a project, at most two seconds old without reloading the page.

The script of the page opens a stream of server-sent events, which webapp/streams.py serves beside Flask. If it cannot,
it polls the board's version every 1.5 seconds, and mostly gets an empty 304. Without a script the page reloads itself.
Source: docs/decisions/0024-live-board.md
"""

from flask import Response, g, make_response, render_template, request

from bus.coordination import board
from webapp.blueprints import NavItem, ProjectBlueprint, current_project
from webapp.context import connection

blueprint = ProjectBlueprint("board", tab=NavItem("Live", 7, "radio"))

POLL_SECONDS = 1.5


@blueprint.get("/")
def index() -> str | Response:
    """Show the board; answer polls of the script with its content alone, or 304 if it has not changed."""
    project = current_project()
    is_poll = bool(request.headers.get("X-Part"))
    with connection() as conn:
        version = board.get_version(conn, project.id)
        g.bus_quiet = is_poll and request.if_none_match.contains(version)
        snapshot = None if g.bus_quiet else board.get_board(conn, project.id)
    if snapshot is not None and not is_poll:
        return render_template("board/index.html", project=project, board=snapshot, poll_seconds=POLL_SECONDS)
    content = "" if snapshot is None else render_template("board/_live.html", project=project, board=snapshot)
    response = make_response(content)
    response.set_etag(version)
    response.make_conditional(request)
    return response


@blueprint.get("/stream")
def stream() -> tuple[str, int]:
    """Decline a stream; requests that webapp/streams.py serves do not arrive here."""
    return "", 204
