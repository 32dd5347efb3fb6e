"""/kit/: the kit's installer as one file, its checksum, and which version this server wants. No sign-in, no cookie."""

import functools
import hashlib
import json

from flask import Blueprint, Response, abort, current_app, request

import kit
from bus.client_setup import Addresses
from kit import bundle

pages = Blueprint("kit", __name__, url_prefix="/kit")

# The oldest kit that works with this server without a word; raised when an older one no longer does.
MINIMUM = "1.0.0"
_SHORT = 300
_FOR_EVER = 31_536_000


@pages.get("/")
def index() -> Response:
    """What the kit is and how to get it, in words for a terminal."""
    addresses = _addresses()
    base = f"{addresses.web}/kit"
    return _text(
        f"""\
LLM Bus kit {kit.VERSION}

Connects a git repository and the clients used in it (Claude Code, Codex, Gemini CLI, Cursor, VS Code, OpenCode,
Windsurf) to {addresses.mcp}. Inside the repository:

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


@pages.get("/install.py")
def install() -> Response:
    """The installer of this server's version."""
    return _text(_script(_addresses()))


@pages.get("/<version>/install.py")
def install_version(version: str) -> Response:
    """The installer of one version; a server has only its own."""
    if version != kit.VERSION:
        abort(404)
    return _text(_script(_addresses()), seconds=_FOR_EVER)


@pages.get("/install.py.sha256")
def checksum() -> Response:
    """The checksum, as `sha256sum -c` reads it."""
    return _text(f"{_digest(_addresses())}  install.py\n")


@pages.get("/version.json")
def version() -> Response:
    """What kits ask once a day."""
    facts = {"version": kit.VERSION, "minimum": MINIMUM, "sha256": _digest(_addresses())}
    return _text(json.dumps(facts) + "\n", mimetype="application/json")


def _addresses() -> Addresses:
    addresses: Addresses = current_app.extensions["bus.addresses"]
    return addresses


@functools.lru_cache(maxsize=8)
def _script(addresses: Addresses) -> str:
    return bundle.script(addresses.mcp, addresses.web)


@functools.lru_cache(maxsize=8)
def _digest(addresses: Addresses) -> str:
    return hashlib.sha256(_script(addresses).encode()).hexdigest()


def _text(body: str, *, seconds: int = _SHORT, mimetype: str = "text/plain") -> Response:
    answer = Response(body, mimetype=mimetype)
    answer.cache_control.public = True
    answer.cache_control.max_age = seconds
    if seconds == _FOR_EVER:
        answer.cache_control.immutable = True
    answer.add_etag()
    answer.make_conditional(request)
    return answer
