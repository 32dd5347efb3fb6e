"""/kit/: the kit's installer as one file, its checksum, and which version this server wants. No sign-in, no cookie."""

import functools
import hashlib
import json

from flask import Blueprint, Response, abort, current_app, request

import kit
from bus.client_setup import Endpoints
from kit import bundle

blueprint = Blueprint("kit", __name__, url_prefix="/kit")

# The oldest kit that works with this server without a word; raised when an older one no longer does.
MINIMUM_VERSION = "1.0.0"
_SHORT_CACHE_SECONDS = 300
_IMMUTABLE_CACHE_SECONDS = 31_536_000


@blueprint.get("/")
def index() -> Response:
    """What the kit is and how to get it, in words for a terminal."""
    addresses = _get_addresses()
    base = f"{addresses.web_url}/kit"
    return _text_response(
        f"""\
LLM Bus kit {kit.VERSION}

Connects a git repository and the clients used in it (Claude Code, Codex, Gemini CLI, Cursor, VS Code, OpenCode,
Windsurf) to {addresses.mcp_url}. Inside the repository:

    curl -fsSL {base}/install.py | python3 -

--dry-run says what it would change, --uninstall takes everything back, --help lists the rest.
To check before running:

    curl -fsSLO {base}/install.py && curl -fsSL {base}/install.py.sha256 | sha256sum -c

Python 3.9 or newer, nothing else. It never blocks your work because the bus is away.

    {base}/install.py            the installer, with all that it installs
    {base}/install.py.sha256     its checksum
    {base}/{kit.VERSION}/install.py      the same, which never changes
    {base}/version.json          the version, and the oldest that this server wants
"""
    )


@blueprint.get("/install.py")
def install() -> Response:
    """The installer of this server's version."""
    return _text_response(_installer_script(_get_addresses()))


@blueprint.get("/<version>/install.py")
def install_version(version: str) -> Response:
    """The installer of one version; a server has only its own."""
    if version != kit.VERSION:
        abort(404)
    return _text_response(_installer_script(_get_addresses()), max_age_seconds=_IMMUTABLE_CACHE_SECONDS)


@blueprint.get("/install.py.sha256")
def checksum() -> Response:
    """The checksum, as `sha256sum -c` reads it."""
    return _text_response(f"{_installer_sha256(_get_addresses())}  install.py\n")


@blueprint.get("/version.json")
def version() -> Response:
    """What kits ask once a day."""
    facts = {"version": kit.VERSION, "minimum": MINIMUM_VERSION, "sha256": _installer_sha256(_get_addresses())}
    return _text_response(json.dumps(facts) + "\n", mimetype="application/json")


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
    answer = Response(body, mimetype=mimetype)
    answer.cache_control.public = True
    answer.cache_control.max_age = max_age_seconds
    if max_age_seconds == _IMMUTABLE_CACHE_SECONDS:
        answer.cache_control.immutable = True
    answer.add_etag()
    answer.make_conditional(request)
    return answer
