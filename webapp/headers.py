"""Security headers of every response, and the checks of every request that precede its view."""

import functools
import gzip
import hashlib
import secrets

from flask import Flask, Response, g, request, session
from werkzeug.exceptions import Forbidden, MisdirectedRequest

from bus.config.settings import Settings, is_allowed
from webapp.auth import require_signing_key
from webapp.blueprints import is_api_request

_COMPRESSED_TYPES = ("text/css", "text/javascript", "application/javascript", "image/svg+xml")
_MIN_COMPRESSED_BYTES = 1_000
# A page of 40 kB takes 0.5 ms.
_PAGE_COMPRESSION_LEVEL = 4
_HSTS_VALUE = "max-age=31536000"
SECRET_ROUTE_ARGUMENTS = frozenset({"code", "key", "share_token", "token"})
"""Variables of routes that are secrets."""
# Requested by the platform, under any host name and without a cookie.
_UNCHECKED_ENDPOINTS = ("health.healthz", "health.readyz", "metrics.index", "static")


def init_app(app: Flask, settings: Settings, *, secure: bool) -> None:
    """Register the checks and the headers.

    Args:
        app: the application.
        settings: the host names that are served.
        secure: whether the service is reached over TLS only.
    """

    def check_request() -> None:
        if request.endpoint in _UNCHECKED_ENDPOINTS:
            return
        if not is_allowed(settings.allowed_hosts, request.host):
            raise MisdirectedRequest
        if not is_api_request():
            require_signing_key()
            # Defence in depth besides the CSRF token: current browsers state which site sent the request.
            if request.method not in ("GET", "HEAD", "OPTIONS") and request.headers.get("Sec-Fetch-Site") in (
                "cross-site",
                "same-site",
            ):
                raise Forbidden("This request came from another site, so nothing was changed.")

    app.before_request_funcs.setdefault(None, []).insert(0, check_request)
    app.after_request(_compress_asset)
    app.after_request(_compress_page)
    app.after_request(_make_conditional)
    app.after_request(_set_security_headers)
    if secure:
        app.after_request(_set_hsts_header)


def csp_nonce() -> str:
    """The nonce that allows the scripts of this response."""
    if "bus_nonce" not in g:
        g.bus_nonce = secrets.token_urlsafe(16)
    nonce: str = g.bus_nonce
    return nonce


def _set_security_headers(response: Response) -> Response:
    headers = response.headers
    scripts = f"'nonce-{g.bus_nonce}'" if "bus_nonce" in g else "'none'"
    headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src {scripts}; style-src 'self'; img-src 'self'; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Frame-Options"] = "DENY"
    # URLs may contain codes, so other sites get no referrer; forms of this site keep their Origin header.
    headers["Referrer-Policy"] = "no-referrer" if _has_secret_path() else "same-origin"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"
    if request.endpoint == "static" and request.args.get("v") and response.status_code in (200, 304):
        # The URL contains a hash of the content.
        headers["Cache-Control"] = "public, max-age=31536000, immutable"
    if "Cache-Control" not in headers:
        # Pages are personal: no shared cache may keep them, and the back button requests them again.
        headers["Cache-Control"] = "no-store" if g.get("bus_no_store") else "private, no-cache"
    return response


@functools.cache
def _compress(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def _compress_asset(response: Response) -> Response:
    """Compress static text."""
    if (
        request.endpoint == "static"
        and response.status_code == 200
        and response.mimetype in _COMPRESSED_TYPES
        and (response.content_length or 0) > _MIN_COMPRESSED_BYTES
    ):
        response.headers["Vary"] = "Accept-Encoding"
        if request.accept_encodings["gzip"]:
            response.direct_passthrough = False
            etag, _ = response.get_etag()
            response.set_data(_compress(response.get_data()))
            response.headers["Content-Encoding"] = "gzip"
            if etag:
                response.set_etag(f"{etag}-gzip")
    return response


def _compress_page(response: Response) -> Response:
    """Compress a page that a page of this site led to.

    The length of a compressed page can reveal what it contains beside input that another site or a participant chose.
    So pages that another site requested, pages with a secret that is shown once, and the parts that scripts poll are
    sent as they are. The CSRF token differs in each response.
    """
    if (
        response.mimetype == "text/html"
        and response.status_code == 200
        and not response.is_streamed
        and not g.get("bus_no_store")
        and not _has_secret_path()
    ):
        response.vary.update(("Accept-Encoding", "Sec-Fetch-Site"))
        if (
            request.accept_encodings["gzip"]
            and request.headers.get("Sec-Fetch-Site") == "same-origin"
            and request.headers.get("Sec-Fetch-Mode") == "navigate"
        ):
            response.set_data(gzip.compress(response.get_data(), _PAGE_COMPRESSION_LEVEL, mtime=0))
            response.headers["Content-Encoding"] = "gzip"
    return response


def _has_secret_path() -> bool:
    """Whether the address contains a secret, which a proxy would log as the referrer of the page's next requests."""
    return bool(SECRET_ROUTE_ARGUMENTS & (request.view_args or {}).keys())


def _set_hsts_header(response: Response) -> Response:
    response.headers["Strict-Transport-Security"] = _HSTS_VALUE
    return response


def _make_conditional(response: Response) -> Response:
    """Answer 304 where the live part of a page has not changed since the script last requested it."""
    if not g.get("bus_part") or response.status_code != 200:
        return response
    content = response.get_data()
    token = g.get("csrf_token", session.get("csrf_token", ""))
    # CSRF tokens differ in every response without changing the page.
    response.set_etag(hashlib.sha256(content.replace(token.encode(), b"")).hexdigest()[:32])
    response.make_conditional(request)
    return response
