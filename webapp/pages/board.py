"""The live board of a project, at most two seconds old without reloading the page.

The script of the page opens a stream of server-sent events, which webapp/streams.py serves beside Flask. If it cannot,
it polls the board's version every 1.5 seconds, and mostly gets an empty 304. Without a script the page reloads itself.
Source: docs/decisions/0024-live-board.md
"""

from flask import Response

from webapp.blueprints import NavItem, ProjectBlueprint, current_project, may
from webapp.board_views import render_board

blueprint = ProjectBlueprint("board", tab=NavItem("Live", 7, "radio"))


@blueprint.get("/")
def index() -> str | Response:
    """Show the board; answer polls of the script with its content alone, or 304 if it has not changed."""
    project = current_project()
    return render_board("board/index.html", project.id, project=project, may_act=may("act"))


@blueprint.get("/stream")
def stream() -> tuple[str, int]:
    """Decline a stream; requests that webapp/streams.py serves do not arrive here."""
    return "", 204
