"""The live board: the team at work, up to date within two seconds without a reload.

The script in the page opens a stream of server-sent events, which webapp/streams.py serves beside Flask. Where that
cannot be had, it asks every second and a half whether the board's mark has moved; mostly it has not, and the answer is
an empty 304. Without a script the page loads itself anew.
Source: docs/decisions/0024-live-board.md
"""

from flask import Response, g, make_response, render_template, request

from bus.coordination import board
from webapp.blueprints import NavItem, ProjectBlueprint, current_project
from webapp.context import connection

blueprint = ProjectBlueprint("board", tab=NavItem("Board", 7))

POLL_SECONDS = 1.5


@blueprint.get("/")
def index() -> str | Response:
    """The board; to its script only what is on it, and nothing at all where that has not changed."""
    project = current_project()
    is_look = bool(request.headers.get("X-Part"))
    with connection() as conn:
        mark = board.get_version(conn, project.id)
        g.bus_quiet = is_look and request.if_none_match.contains(mark)
        found = None if g.bus_quiet else board.get_board(conn, project.id)
    if found is not None and not is_look:
        return render_template("board/index.html", project=project, board=found, poll_seconds=POLL_SECONDS)
    part = "" if found is None else render_template("board/_live.html", project=project, board=found)
    response = make_response(part)
    response.set_etag(mark)
    response.make_conditional(request)
    return response


@blueprint.get("/stream")
def stream() -> tuple[str, int]:
    """Say that there is no stream to be had here; where there is one, this is not asked."""
    return "", 204
