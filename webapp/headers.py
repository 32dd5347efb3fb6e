"""What every answer carries against those who would misuse it, and what every request is asked first."""

import hashlib
import secrets

from flask import Flask, Response, g, request, session
from werkzeug.exceptions import Forbidden, MisdirectedRequest

from bus.config.settings import Settings, is_allowed
from webapp.auth import require_signing_key
from webapp.blueprints import is_api_request

_HSTS_VALUE = "max-age=31536000"
# Asked by whatever address the platform knows, and without anything that a visitor has.
_UNCHECKED_ENDPOINTS = ("health.healthz", "health.readyz", "metrics.index", "static")


def init_app(app: Flask, settings: Settings, *, secure: bool) -> None:
    """Harden the app.

    Args:
        secure: whether the service is reached over TLS only.
    """

    def screen() -> None:
        if request.endpoint in _UNCHECKED_ENDPOINTS:
            return
        if not is_allowed(settings.allowed_hosts, request.host):
            raise MisdirectedRequest
        if not is_api_request():
            require_signing_key()
            # The CSRF token decides; this stops a foreign page before it, in every browser of the last years.
            if request.method not in ("GET", "HEAD", "OPTIONS") and request.headers.get("Sec-Fetch-Site") in (
                "cross-site",
                "same-site",
            ):
                raise Forbidden("This came from another site, so nothing was done.")

    app.before_request_funcs.setdefault(None, []).insert(0, screen)
    app.after_request(_make_conditional)
    app.after_request(_set_security_headers)
    if secure:
        app.after_request(_set_hsts_header)


def csp_nonce() -> str:
    """What marks the scripts of this answer as ours."""
    if "bus_nonce" not in g:
        g.bus_nonce = secrets.token_urlsafe(16)
    found: str = g.bus_nonce
    return found


def _set_security_headers(response: Response) -> Response:
    headers = response.headers
    scripts = f"'nonce-{g.bus_nonce}'" if "bus_nonce" in g else "'none'"
    headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src {scripts}; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Frame-Options"] = "DENY"
    # Addresses may hold codes, so nobody else hears of them; our own forms keep their Origin.
    headers["Referrer-Policy"] = "same-origin"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"
    if request.endpoint == "static" and request.args.get("v") and response.status_code in (200, 304):
        # Asked for by its fingerprint: another content has another address.
        headers["Cache-Control"] = "public, max-age=31536000, immutable"
    if "Cache-Control" not in headers:
        # A page is made for one person at one moment: nobody shares it, and going back asks again.
        headers["Cache-Control"] = "no-store" if g.get("bus_no_store") else "private, no-cache"
    return response


def _set_hsts_header(response: Response) -> Response:
    response.headers["Strict-Transport-Security"] = _HSTS_VALUE
    return response


def _make_conditional(response: Response) -> Response:
    """Let the script in a page ask whether a living part has changed, and answer 304 if not."""
    if not g.get("bus_part") or response.status_code != 200:
        return response
    content = response.get_data()
    token = g.get("csrf_token", session.get("csrf_token", ""))
    # The token of a form is another in every answer, and means the same.
    response.set_etag(hashlib.sha256(content.replace(token.encode(), b"")).hexdigest()[:32])
    response.make_conditional(request)
    return response
