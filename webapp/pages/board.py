"""The live board: the team at work, up to date within two seconds without a reload.

The script in the page asks every second and a half whether the board's mark has moved. Mostly it has not, and the
answer is an empty 304; when it has, the answer is the board alone, made once for all who watch the project in this
process. Most of these looks are answered before they come here (webapp/boards.py).
Source: docs/decisions/0024-live-board.md
"""

from flask import Response, current_app, g, make_response, render_template, request

from bus import board
from webapp.boards import Made
from webapp.engine import reading
from webapp.page import Entry, ProjectPages, current_project

pages = ProjectPages("board", tab=Entry("Board", 7))

EVERY_SECONDS = 1.5


@pages.get("/")
def index() -> str | Response:
    """The board; to its script only what is on it, and nothing at all where that has not changed."""
    project = current_project()
    if not request.headers.get("X-Part"):
        with reading() as conn:
            found = board.get(conn, project.id)
        return render_template("board/index.html", project=project, board=found, every=EVERY_SECONDS)
    made: Made = current_app.extensions["bus.boards"]
    with reading() as conn:
        mark = board.mark(conn, project.id)
        g.bus_quiet = request.if_none_match.contains(mark)
        part = "" if g.bus_quiet else made.get(project.id, mark)
        if part is None:
            found = board.get(conn, project.id)
            mark, part = found.mark, render_template("board/_now.html", project=project, board=found)
            made.put(project.id, mark, part)
    response = make_response(part)
    response.set_etag(mark)
    response.make_conditional(request)
    return response
