"""Redeeming an invite: a page for people, JSON for their agents."""

from typing import Any

import msgspec
from flask import Response, jsonify, make_response, render_template, request
from werkzeug.exceptions import HTTPException, NotFound

from bus import client_setup
from bus.agent_guide import GUIDE
from bus.errors import BusError, InvalidArgument
from bus.rules.token_format import fingerprint, is_code
from bus.tenancy import invite_redemption
from bus.tenancy.invite_redemption import Offer
from bus.tenancy.participations import Grant
from webapp.blueprints import PublicPages, machine, no_store
from webapp.context import addresses, options, reading, writing
from webapp.ratelimit import admit, client_address

pages = PublicPages("join")

# What the original answers where the bus says wrong_state: the invite existed and is over.
_GONE = 410


@pages.get("/join/<code>")
@no_store
def show(code: str) -> Response | tuple[str, int]:
    """Explains an invite to whoever holds its code, and uses nothing up."""
    offer = find_offer(code)
    prompt = None
    if offer.email is None:
        prompt = client_setup.invite_prompt(addresses(), code, offer.project, offer.participant_name)
    return make_response(render_template("join/show.html", code=code, offer=offer, prompt=prompt))


@pages.post("/join")
@machine
@no_store
def redeem() -> Response | tuple[Response, int]:
    """Use an invite: `{"code", "name"?, "nonce"?}` in, the token and how to connect out."""
    admit("join", client_address(), options().join_per_minute)
    code, name, nonce = _sent()
    count_code(code)
    try:
        with writing() as conn:
            granted = invite_redemption.redeem(conn, code, name=name, nonce=nonce)
    except BusError as error:
        if error.code != "wrong_state":
            raise
        return jsonify(ok=False, error=error.data["reason"], message=error.message), _GONE
    return jsonify(_answer(granted))


def find_offer(code: str) -> Offer:
    """What an invite offers; where it offers nothing, the page that says why.

    What has not the form of a code is not even looked for.
    """
    admit("join", client_address(), options().join_per_minute)
    if not is_code(code):
        raise NotFound
    try:
        with reading() as conn:
            return invite_redemption.look(conn, code)
    except BusError as error:
        if error.code == "unavailable":
            raise
        status = {"wrong_state": _GONE, "forbidden": 403}.get(error.code, 404)
        page = make_response(render_template("join/over.html", message=error.message), status)
        raise HTTPException(response=page) from None


def count_code(code: str) -> None:
    """Count a try of one code, however many addresses it comes from."""
    most = options().join_per_minute
    if most:
        admit("join-code", fingerprint(code).hex(), max(1, most // 3))


def _sent() -> tuple[str, str | None, str | None]:
    try:
        sent: Any = msgspec.json.decode(request.get_data())
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        sent = None
    if not isinstance(sent, dict):
        raise InvalidArgument('Send a JSON object: {"code": "inv_…", "name": "what you will be called"}.')
    code, name, nonce = sent.get("code"), sent.get("name"), sent.get("nonce")
    if not isinstance(code, str) or not code:
        raise InvalidArgument("code is required: it is in the invite that you were sent.", reason="code required")
    for argument, value in (("name", name), ("nonce", nonce)):
        if value is not None and not isinstance(value, str):
            raise InvalidArgument(f"{argument} must be text.")
    return code, name, nonce


def _answer(granted: Grant) -> dict[str, Any]:
    """What an agent is told that has joined: the fields of the original, and `setup`."""
    setup = client_setup.setup(addresses(), granted.token)
    return {
        "ok": True,
        "project": granted.project,
        "project_name": granted.project,
        "participant": granted.participant,
        "created": granted.created,
        "token": granted.token,
        "connect_command": setup["clients"]["claude_code"],
        "files": {".mcp.json": setup["mcp_json"]},
        "guide": GUIDE,
        "next": "Connect with connect_command (or your client's own form in setup), then call whats_new.",
        "setup": setup,
    }
