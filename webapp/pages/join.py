"""Redeeming an invite: a page for people, JSON for their agents."""

from typing import Any

import msgspec
from flask import Response, jsonify, make_response, render_template, request

from bus import client_setup
from bus.agent_guide import GUIDE
from bus.errors import BusError, InvalidArgument
from bus.tenancy import invite_redemption
from bus.tenancy.participations import IssuedParticipation
from webapp.blueprints import PublicBlueprint, api_view, no_store
from webapp.context import addresses, options, transaction
from webapp.invites import HTTP_GONE, get_offer, limit_code_attempts
from webapp.ratelimit import client_address, enforce_rate_limit

blueprint = PublicBlueprint("join")


@blueprint.get("/join/<code>")
@no_store
def show(code: str) -> Response | tuple[str, int]:
    """Explain an invite; does not use it."""
    offer = get_offer(code)
    prompt = None
    if offer.email is None and offer.role is None:
        prompt = client_setup.invite_prompt(addresses(), code, offer.project, offer.participant_name)
    return make_response(render_template("join/show.html", code=code, offer=offer, prompt=prompt))


@blueprint.post("/join")
@api_view
@no_store
def redeem() -> Response | tuple[Response, int]:
    """Redeem an invite: takes `{"code", "name"?, "nonce"?}`, returns the token and setup instructions."""
    enforce_rate_limit("join", client_address(), options().join_per_minute)
    code, name, nonce = _parse_redemption()
    limit_code_attempts(code)
    try:
        with transaction() as conn:
            issued = invite_redemption.redeem(conn, code, name=name, nonce=nonce)
    except BusError as error:
        if error.code != "wrong_state":
            raise
        return jsonify(ok=False, error=error.data["reason"], message=error.message), HTTP_GONE
    return jsonify(_redemption_response(issued))


def _parse_redemption() -> tuple[str, str | None, str | None]:
    try:
        body: Any = msgspec.json.decode(request.get_data())
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        body = None
    if not isinstance(body, dict):
        raise InvalidArgument('Send a JSON object: {"code": "inv_…", "name": "the name of your agent"}.')
    code, name, nonce = body.get("code"), body.get("name"), body.get("nonce")
    if not isinstance(code, str) or not code:
        raise InvalidArgument("code is required: it is in the invite that you received.", reason="code required")
    for argument, value in (("name", name), ("nonce", nonce)):
        if value is not None and not isinstance(value, str):
            raise InvalidArgument(f"{argument} must be text.")
    return code, name, nonce


def _redemption_response(issued: IssuedParticipation) -> dict[str, Any]:
    """The response to an agent that joined: the fields of the original service, and `setup`."""
    setup = client_setup.build_setup(addresses(), issued.token)
    return {
        "ok": True,
        "project": issued.project,
        "project_name": issued.project,
        "participant": issued.participant,
        "created": issued.created,
        "token": issued.token,
        "connect_command": setup["clients"]["claude_code"],
        "files": {".mcp.json": setup["mcp_json"]},
        "guide": GUIDE,
        "next": "Connect with connect_command (or your client's own form in setup), then call whats_new.",
        "setup": setup,
    }
