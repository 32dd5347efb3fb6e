"""The kit's installer as one file, its checksum and its version, under /kit/. Public, without cookies."""

import functools
import hashlib
import json

from flask import Blueprint, Response, abort, current_app, request

import kit
from bus.client_setup import Endpoints
from kit import bundle

blueprint = Blueprint("kit", __name__, url_prefix="/kit")

# The oldest kit version that works with this server.
MINIMUM_VERSION = "1.0.0"
_SHORT_CACHE_SECONDS = 300
_IMMUTABLE_CACHE_SECONDS = 31_536_000


@blueprint.get("/")
def index() -> Response:
    """Explain the kit and how to install it, as plain text for a terminal."""
    addresses = _get_addresses()
    base = f"{addresses.web_url}/kit"
    return _text_response(
        f"""\
LLM Bus kit {kit.VERSION}

Connects a git repository and the clients used in it (Claude Code, Codex, Gemini CLI, Cursor, VS Code, OpenCode,
Windsurf) to {addresses.mcp_url}. Inside the repository:

    curl -fsSL {base}/install.py | python3 -

--dry-run shows what it would change, --uninstall removes everything, --help lists the other options.
To check before running:

    curl -fsSLO {base}/install.py && curl -fsSL {base}/install.py.sha256 | sha256sum -c

Requires only Python 3.9 or newer. If the bus is down, your work goes on.

    {base}/install.py            the installer, self-contained
    {base}/install.py.sha256     its checksum
    {base}/{kit.VERSION}/install.py      this version of the installer; never changes
    {base}/version.json          the current version and the oldest supported one
"""
    )


@blueprint.get("/install.py")
def install() -> Response:
    """Return the installer."""
    return _text_response(_installer_script(_get_addresses()))


@blueprint.get("/<version>/install.py")
def install_version(version: str) -> Response:
    """Return the installer of one version; a server has only its own."""
    if version != kit.VERSION:
        abort(404)
    return _text_response(_installer_script(_get_addresses()), max_age_seconds=_IMMUTABLE_CACHE_SECONDS)


@blueprint.get("/install.py.sha256")
def checksum() -> Response:
    """Return the checksum in the format of `sha256sum -c`."""
    return _text_response(f"{_installer_sha256(_get_addresses())}  install.py\n")


@blueprint.get("/version.json")
def version() -> Response:
    """Return the version and the minimum version, which installed kits request once a day."""
    document = {"version": kit.VERSION, "minimum": MINIMUM_VERSION, "sha256": _installer_sha256(_get_addresses())}
    return _text_response(json.dumps(document) + "\n", mimetype="application/json")


def _get_addresses() -> Endpoints:
    addresses: Endpoints = current_app.extensions["bus.addresses"]
    return addresses


@functools.lru_cache(maxsize=8)
def _installer_script(addresses: Endpoints) -> str:
    return bundle.build_script(addresses.mcp_url, addresses.web_url)


@functools.lru_cache(maxsize=8)
def _installer_sha256(addresses: Endpoints) -> str:
    return hashlib.sha256(_installer_script(addresses).encode()).hexdigest()


def _text_response(body: str, *, max_age_seconds: int = _SHORT_CACHE_SECONDS, mimetype: str = "text/plain") -> Response:
    response = Response(body, mimetype=mimetype)
    response.cache_control.public = True
    response.cache_control.max_age = max_age_seconds
    if max_age_seconds == _IMMUTABLE_CACHE_SECONDS:
        response.cache_control.immutable = True
    response.add_etag()
    response.make_conditional(request)
    return response
