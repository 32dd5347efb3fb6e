"""Redeeming an invite: a page for people, JSON for their agents."""

import msgspec
from flask import Blueprint, Response, abort, current_app, jsonify, render_template, request

from bus import cards, redemptions
from bus.cards import Addresses
from bus.db import Database
from bus.errors import BusError, InvalidArgument
from bus.guide import GUIDE
from bus.rules.tokens import is_code
from webapp.page import machine

pages = Blueprint("join", __name__)

# What the original answers where the bus says wrong_state: the invite existed and is over.
_GONE = 410


@pages.get("/join/<code>")
def show(code: str) -> str:
    """Explains an invite, without using it. Says the same whether the code exists or not.

    What has not the form of a code is 404: nobody gets to put words of theirs into the prompt.
    """
    if not is_code(code):
        abort(404)
    prompt = cards.invite_prompt(_addresses(), code, None, None)
    return render_template("join/show.html", prompt=prompt)


@pages.post("/join")
@machine
def redeem() -> tuple[Response, int]:
    """Use an invite: `{"code", "name"?}` in, the token and how to connect out."""
    try:
        sent = msgspec.json.decode(request.get_data())
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        sent = None
    if not isinstance(sent, dict):
        raise InvalidArgument('Send a JSON object: {"code": "inv_…", "name": "what you will be called"}.')
    code, name, nonce = sent.get("code"), sent.get("name"), sent.get("nonce")
    if not isinstance(code, str) or not code:
        raise InvalidArgument("code is required: it is in the invite that you were sent.", reason="code required")
    if name is not None and not isinstance(name, str):
        raise InvalidArgument("name must be text.")
    if nonce is not None and not isinstance(nonce, str):
        raise InvalidArgument("nonce must be text.")
    db: Database = current_app.extensions["bus.db"]
    try:
        with db.write() as conn:
            granted = redemptions.redeem(conn, code, name=name, nonce=nonce)
    except BusError as error:
        if error.code != "wrong_state":
            raise
        return jsonify(ok=False, error=error.data["reason"], message=error.message), _GONE
    addresses = _addresses()
    setup = cards.setup(addresses, granted.token)
    answer = jsonify(
        ok=True,
        project=granted.project,
        project_name=granted.project,
        participant=granted.participant,
        created=granted.created,
        token=granted.token,
        connect_command=setup["clients"]["claude_code"],
        files={".mcp.json": cards.mcp_json(addresses)},
        guide=GUIDE,
        next="Connect with connect_command (or your client's own form in setup), then call whats_new.",
        setup=setup,
    )
    answer.headers["Cache-Control"] = "no-store"
    return answer, 200


def _addresses() -> Addresses:
    addresses: Addresses = current_app.extensions["bus.addresses"]
    return addresses
