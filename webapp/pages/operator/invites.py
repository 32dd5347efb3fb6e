"""Open invites of all projects."""

from flask import flash, render_template, url_for
from werkzeug.wrappers import Response

from bus.db.pagination import paginate
from bus.operations import console_queries
from bus.tenancy import invites
from webapp.auth import current_owner
from webapp.blueprints import ID_CONVERTER, NavItem, OperatorBlueprint, see_other
from webapp.context import connection, redirect_on_refusal, transaction
from webapp.pagination import PAGE_SIZE, current_url, query_int

blueprint = OperatorBlueprint("operator_invites", path="invites", tab=NavItem("Invites", 40))


@blueprint.get("/")
def index() -> str:
    """List the open invites, newest first."""
    before = query_int("before")
    with connection() as conn:
        rows = console_queries.list_open_invites(conn, before=before, limit=PAGE_SIZE + 1)
    page, has_more = paginate(rows, PAGE_SIZE)
    return render_template(
        "operator/invites.html",
        invites=page,
        older=current_url(before=str(page[-1].id)) if has_more else None,
        newest=current_url(before=None) if before else None,
    )


@blueprint.action(f"/<{ID_CONVERTER}:invite_id>/revoke")
def revoke(invite_id: int) -> Response:
    """Revoke an invite."""
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        invite = console_queries.get_open_invite(conn, invite_id)
        invites.revoke(conn, invite.project_id, invite.id, actor=current_owner().handle)
    flash(f"Invite {invite.hint} to {invite.owner}/{invite.project} revoked.", "success")
    return see_other(".index")
