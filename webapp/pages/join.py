"""Redeeming an invite: a page for people, JSON for their agents."""

from typing import Any

import msgspec
from flask import Response, jsonify, make_response, render_template, request
from werkzeug.exceptions import HTTPException, NotFound

from bus import client_setup
from bus.agent_guide import GUIDE
from bus.errors import BusError, InvalidArgument
from bus.rules.token_format import fingerprint, is_well_formed_invite_code
from bus.tenancy import invite_redemption
from bus.tenancy.invite_redemption import InviteOffer
from bus.tenancy.participations import IssuedParticipation
from webapp.blueprints import PublicBlueprint, api_view, no_store
from webapp.context import addresses, connection, options, transaction
from webapp.ratelimit import client_address, enforce_rate_limit

blueprint = PublicBlueprint("join")

# What the original answers where the bus says wrong_state: the invite existed and is over.
_HTTP_GONE = 410


@blueprint.get("/join/<code>")
@no_store
def show(code: str) -> Response | tuple[str, int]:
    """Explains an invite to whoever holds its code, and uses nothing up."""
    offer = get_offer(code)
    prompt = None
    if offer.email is None:
        prompt = client_setup.invite_prompt(addresses(), code, offer.project, offer.participant_name)
    return make_response(render_template("join/show.html", code=code, offer=offer, prompt=prompt))


@blueprint.post("/join")
@api_view
@no_store
def redeem() -> Response | tuple[Response, int]:
    """Use an invite: `{"code", "name"?, "nonce"?}` in, the token and how to connect out."""
    enforce_rate_limit("join", client_address(), options().join_per_minute)
    code, name, nonce = _parse_redemption()
    limit_code_attempts(code)
    try:
        with transaction() as conn:
            granted = invite_redemption.redeem(conn, code, name=name, nonce=nonce)
    except BusError as error:
        if error.code != "wrong_state":
            raise
        return jsonify(ok=False, error=error.data["reason"], message=error.message), _HTTP_GONE
    return jsonify(_redemption_response(granted))


def get_offer(code: str) -> InviteOffer:
    """What an invite offers; where it offers nothing, the page that says why.

    What has not the form of a code is not even looked for.
    """
    enforce_rate_limit("join", client_address(), options().join_per_minute)
    if not is_well_formed_invite_code(code):
        raise NotFound
    try:
        with connection() as conn:
            return invite_redemption.get_offer(conn, code)
    except BusError as error:
        if error.code == "unavailable":
            raise
        status = {"wrong_state": _HTTP_GONE, "forbidden": 403}.get(error.code, 404)
        page = make_response(render_template("join/unavailable.html", message=error.message), status)
        raise HTTPException(response=page) from None


def limit_code_attempts(code: str) -> None:
    """Count a try of one code, however many addresses it comes from."""
    most = options().join_per_minute
    if most:
        enforce_rate_limit("join-code", fingerprint(code).hex(), max(1, most // 3))


def _parse_redemption() -> tuple[str, str | None, str | None]:
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


def _redemption_response(granted: IssuedParticipation) -> dict[str, Any]:
    """What an agent is told that has joined: the fields of the original, and `setup`."""
    setup = client_setup.build_setup(addresses(), granted.token)
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
