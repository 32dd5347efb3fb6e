"""The response of a live board: the page, its content alone for polls of the script, or 304.

Shared by the board of an owner and that of a share link.
"""

from typing import Any

from flask import Response, g, make_response, render_template, request

from bus.coordination import board, board_rails
from webapp.context import connection

POLL_SECONDS = 1.5


def is_board_poll() -> bool:
    """Whether the script of an open board requests a newer version."""
    return bool(request.headers.get("X-Part"))


def render_board(template: str, project_id: int, **values: Any) -> str | Response:
    """Render a board as the page of `template`; polls get its content alone, or 304 if it has not changed."""
    is_poll = is_board_poll()
    with connection() as conn:
        version = board.get_version(conn, project_id)
        g.bus_quiet = is_poll and request.if_none_match.contains(version)
        snapshot = None if g.bus_quiet else board.get_board(conn, project_id)
    content = ""
    if snapshot is not None:
        content = render_template(
            "board/_live.html" if is_poll else template,
            board=snapshot,
            rails=board_rails.build_rails(snapshot),
            poll_seconds=POLL_SECONDS,
            **values,
        )
    if not is_poll:
        return content
    response = make_response(content)
    response.set_etag(version)
    response.make_conditional(request)
    return response
