"""Disconnecting a client, from the account or from the page of a participant."""

from flask import flash, redirect, request, url_for
from werkzeug.wrappers import Response

from bus.tenancy import client_grants
from webapp.auth import current_owner
from webapp.blueprints import ID_CONVERTER, OwnerBlueprint
from webapp.context import transaction
from webapp.login import safe_redirect_target
from webapp.suspension import allowed_while_suspended

blueprint = OwnerBlueprint("connected_clients", url_prefix="/account/clients")


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
