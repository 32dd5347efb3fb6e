"""Redirects from former addresses, so that bookmarks keep working."""

from typing import Any

from flask import redirect, request, url_for
from werkzeug.wrappers import Response

from webapp.blueprints import ID_CONVERTER, ProjectBlueprint, current_project, requires

blueprint = ProjectBlueprint("moved_addresses", path="")


@blueprint.get("/pictures/")
def insights() -> Response:
    """Redirect to the insights of the project."""
    return _redirect_to("insights.index")


@blueprint.get("/pictures/report")
def report() -> Response:
    """Redirect to the report of the project."""
    return _redirect_to("insights.report")


@blueprint.get("/pictures/report.html")
def report_file() -> Response:
    """Redirect to the report as a file."""
    return _redirect_to("insights.report_file")


@blueprint.get("/members/")
def participants() -> Response:
    """Redirect to the participants of the project."""
    return _redirect_to("project_participants.index")


@blueprint.get("/members/new")
@requires("act")
def new_participant() -> Response:
    """Redirect to the form that adds a participant."""
    return _redirect_to("project_participants.new")


@blueprint.get(f"/members/<{ID_CONVERTER}:participation_id>")
def participation(participation_id: int) -> Response:
    """Redirect to a participation."""
    return _redirect_to("project_participants.show", participation_id=participation_id)


def _redirect_to(endpoint: str, **values: Any) -> Response:
    """Redirect permanently and keep the query string."""
    query = request.query_string.decode("latin-1")
    url = url_for(endpoint, project_id=current_project().id, **values)
    return redirect(f"{url}?{query}" if query else url, 308)
