"""The live board: the team at work, up to date within two seconds without a reload.

The script in the page asks every second and a half whether the board's mark has moved. Mostly it has not, and the
answer is an empty 304; when it has, the answer is the board alone, made once for all who watch the project in this
process.
Source: docs/decisions/0024-live-board.md
"""

import threading
from collections import OrderedDict

from flask import Response, g, make_response, render_template, request

from bus import board
from webapp.engine import reading
from webapp.page import Entry, ProjectPages, current_project

pages = ProjectPages("board", tab=Entry("Board", 7))

_EVERY_SECONDS = 1.5
_KEPT = 256


class _Made:
    """Boards as they were made, by project and mark; the ones used last are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[tuple[int, str], str] = OrderedDict()

    def get(self, project_id: int, mark: str) -> str | None:
        with self._lock:
            found = self._found.get((project_id, mark))
            if found is not None:
                self._found.move_to_end((project_id, mark))
            return found

    def put(self, project_id: int, mark: str, made: str) -> None:
        with self._lock:
            self._found[project_id, mark] = made
            while len(self._found) > _KEPT:
                self._found.popitem(last=False)


_made = _Made()


@pages.get("/")
def index() -> str | Response:
    """The board; to its script only what is on it, and nothing at all where that has not changed."""
    project = current_project()
    if not request.headers.get("X-Part"):
        with reading() as conn:
            found = board.get(conn, project.id)
        return render_template("board/index.html", project=project, board=found, every=_EVERY_SECONDS)
    with reading() as conn:
        mark = board.mark(conn, project.id)
        part = None if request.if_none_match.contains(mark) else _made.get(project.id, mark)
        if part is None and not request.if_none_match.contains(mark):
            found = board.get(conn, project.id)
            mark = found.mark
            part = render_template("board/_now.html", project=project, board=found)
            _made.put(project.id, mark, part)
    response = make_response(part or "")
    response.set_etag(mark)
    response.make_conditional(request)
    g.bus_quiet = part is None
    return response
