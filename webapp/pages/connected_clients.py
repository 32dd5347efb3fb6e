"""Connecting clients with the address alone, and disconnecting them."""

from flask import flash, redirect, render_template, request, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from bus import client_setup
from bus.config.settings import serves_oauth
from bus.tenancy import client_grants
from webapp.auth import current_owner
from webapp.blueprints import ID_CONVERTER, OwnerBlueprint
from webapp.context import addresses, connection, settings, transaction
from webapp.login import safe_redirect_target
from webapp.suspension import allowed_while_suspended

blueprint = OwnerBlueprint("connected_clients", url_prefix="/account/clients")


# What remains to be done after the command, for those that do not sign in by themselves.
_SIGN_IN_STEPS = {
    "opencode": "Then run opencode mcp auth llm-bus.",
    "gemini": "Then run /mcp auth llm-bus in a session.",
    "cursor": "Then open the settings of MCP in Cursor and press Connect.",
    "vscode": "VS Code opens the browser when it starts the server.",
}


@blueprint.get("/")
def index() -> str:
    """Show how to connect each client, and those that are connected."""
    if not serves_oauth(settings()):
        raise NotFound
    with connection() as conn:
        connected = client_grants.list_connected(conn, current_owner().id)
    return render_template(
        "connected_clients/index.html",
        setups=client_setup.build_sign_in_setups(addresses()),
        steps=_SIGN_IN_STEPS,
        mcp_url=addresses().mcp_url,
        connected_clients=connected,
    )


@blueprint.post(f"/<{ID_CONVERTER}:grant_id>/disconnect")
@allowed_while_suspended
def disconnect(grant_id: int) -> Response:
    """End a connection; the participant stays."""
    owner = current_owner()
    with transaction() as conn:
        client_grants.disconnect(conn, owner.id, grant_id, actor=owner.handle)
    flash("Client disconnected; its next call is refused.", "success")
    back = safe_redirect_target(request.form.get("back", "")) or url_for("account.index", _anchor="clients")
    return redirect(back, 303)
