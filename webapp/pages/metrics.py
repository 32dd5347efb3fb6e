"""Metrics of the process and of the service for Prometheus, protected by a token."""

from flask import Response, current_app, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import NotFound, Unauthorized

from bus.operations.metrics import CONTENT_TYPE, MetricsEndpoint
from webapp.blueprints import PublicBlueprint, api_view

blueprint = PublicBlueprint("metrics")


@blueprint.get("/metrics")
@api_view
def index() -> Response:
    """Return the metrics; 404 without METRICS_TOKEN."""
    metrics: MetricsEndpoint = current_app.extensions["bus.metrics"]
    status = metrics.authorize(request.headers.get("Authorization"))
    if status == 404:
        raise NotFound
    if status != 200:
        raise Unauthorized(www_authenticate=WWWAuthenticate("bearer"))
    return Response(metrics.render(), content_type=CONTENT_TYPE)
