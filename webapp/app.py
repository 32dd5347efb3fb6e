"""The factory of the Flask application."""

import importlib
import logging
import pkgutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Flask, Response, current_app, g, request
from flask_wtf import CSRFProtect
from prometheus_client.metrics_core import Metric
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wsgi import ClosingIterator, FileWrapper

import webapp.pages
from bus.client_setup import Endpoints
from bus.config.settings import Settings
from bus.coordination.change_notifications import NotificationPublisher
from bus.db import Database
from bus.operations import telemetry
from bus.operations.counters import make_counter, make_histogram
from bus.operations.logs import REQUEST_ID, accept_correlation_id, log_context
from bus.operations.metrics import MetricsEndpoint, pool_metrics, service_metrics
from bus.operations.status import CachedStatus, RedisProbe
from webapp import auth, errors, headers, providers, templating
from webapp.blueprints import hide_operator_pages, is_api_request
from webapp.ratelimit import RateLimiter
from webapp.settings import WebOptions
from webapp.suspension import refuse_while_suspended

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_PACKAGE_DIR = Path(__file__).resolve().parent
# The wheel puts the templates into the package; a checkout has them beside it.
_TEMPLATE_DIR = next(path for path in (_PACKAGE_DIR / "templates", _PACKAGE_DIR.parent / "templates") if path.is_dir())
_log = logging.getLogger("webapp.request")


def create_app(settings: Settings, options: WebOptions | None = None, metrics: MetricsEndpoint | None = None) -> Flask:
    """Create the web application, with the `blueprint` of every module in webapp/pages.

    Args:
        settings: the settings that all processes share.
        options: the settings of the web process; defaults if left out.
        metrics: the endpoint to which the metrics of the process and of the service are added; a new one if left out.
    """
    options = options or WebOptions()
    secure = settings.public_url.startswith("https://")
    app = Flask(__name__, template_folder=str(_TEMPLATE_DIR))
    app.config.update(
        MAX_CONTENT_LENGTH=settings.max_body_bytes,
        # A CSRF token is valid as long as the session cookie, so that a form that was left open still works.
        WTF_CSRF_TIME_LIMIT=None,
        # headers.py checks Sec-Fetch-Site instead, which referrer policies and proxies do not change.
        WTF_CSRF_SSL_STRICT=False,
    )
    app.extensions["bus.settings"] = settings
    app.extensions["bus.options"] = options
    app.extensions["bus.addresses"] = Endpoints(settings.public_url, settings.mcp_url)
    app.extensions["bus.db"] = Database(
        settings.database_url,
        pool_size=settings.threads,
        application_name="llm-bus web",
        on_commit=NotificationPublisher(settings.redis_url).publish,
    )
    app.extensions["bus.providers"] = providers.create_providers(options)
    app.extensions["bus.requests"] = make_counter("web_requests", "Requests to the web by route.", ("route", "status"))
    app.extensions["bus.timings"] = make_histogram("web_request_seconds", "How long the web took.", ("route",))
    app.extensions["bus.status"] = CachedStatus(app.extensions["bus.db"], RedisProbe(settings.redis_url))
    app.extensions["bus.metrics"] = metrics or MetricsEndpoint("web", settings.metrics_token)
    _register_metrics(app)
    app.extensions["bus.rate_limiter"] = RateLimiter(settings.redis_url)
    for module in pkgutil.walk_packages(webapp.pages.__path__, "webapp.pages."):
        if not module.ispkg:
            app.register_blueprint(importlib.import_module(module.name).blueprint)
    auth.init_app(app, secure=secure)
    _CsrfProtect(app)
    headers.init_app(app, settings, secure=secure)
    errors.init_app(app)
    templating.init_app(app)
    # After the check of headers.py, and before the CSRF check, whose error would reveal that a page exists.
    app.before_request_funcs[None].insert(1, hide_operator_pages)
    app.before_request_funcs[None].insert(0, _begin_request)
    app.before_request(refuse_while_suspended)
    app.after_request(_log_request)
    app.teardown_request(_end_request)
    app.wsgi_app = _NonEmptyBodyMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    if options.proxy_hops:
        hops = options.proxy_hops
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops)  # type: ignore[method-assign]
    return app


class _CsrfProtect(CSRFProtect):  # type: ignore[misc]
    """CSRF protection for every POST except API views, which do not use cookies."""

    def _is_exempt(self) -> bool:
        return is_api_request()


class _NonEmptyBodyMiddleware:
    """WSGI middleware that begins every response with an empty chunk: hypercorn sends no headers without a chunk."""

    def __init__(self, app: "WSGIApplication") -> None:
        self._app = app

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterator[bytes]:
        chunks = self._app(environ, start_response)
        try:
            yield b""
            yield from chunks
        finally:
            # Closing a page ends its request; closing a file releases it.
            if isinstance(chunks, ClosingIterator | FileWrapper):
                chunks.close()


def _begin_request() -> None:
    g.bus_started = time.perf_counter()
    g.bus_request_id = accept_correlation_id(request.headers.get("X-Request-Id"))
    log_context.set((REQUEST_ID, g.bus_request_id))


def _end_request(_error: BaseException | None) -> None:
    # Threads are reused for other requests.
    log_context.set(None)


def _register_metrics(app: Flask) -> None:
    """Add the counters of this process and the service status to the metrics endpoint."""
    extensions = app.extensions

    def read() -> Iterator[Metric]:
        yield from extensions["bus.requests"].collect()
        yield from extensions["bus.timings"].collect()
        yield from pool_metrics(extensions["bus.db"], "web")
        yield from service_metrics(extensions["bus.status"])

    extensions["bus.metrics"].add_source(read)


def _log_request(response: Response) -> Response:
    # Log the route rather than the URL, which may contain an invite code or a login token.
    route = request.url_rule.rule if request.url_rule is not None else None
    response.headers["X-Request-Id"] = g.get("bus_request_id", "")
    if request.endpoint not in ("static", "health.healthz"):
        elapsed = time.perf_counter() - g.get("bus_started", time.perf_counter())
        current_app.extensions["bus.requests"].labels(route or "none", str(response.status_code)).inc()
        current_app.extensions["bus.timings"].labels(route or "none").observe(elapsed)
        # Polls of an unchanged board are frequent and would drown the rest of the log.
        if not g.get("bus_quiet"):
            telemetry.record_span(route or "none", elapsed, status=response.status_code)
            _write_access_log(route, response.status_code, elapsed)
    return response


def _write_access_log(route: str | None, status: int, elapsed: float) -> None:
    fields = {"method": request.method, "route": route, "status": status, "ms": round(elapsed * 1000, 1)}
    _log.info("request", extra={"fields": fields})
