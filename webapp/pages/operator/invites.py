"""Every invite that lets somebody in at this moment."""

from flask import flash, render_template, url_for
from werkzeug.wrappers import Response

from bus.operations import queries
from bus.tenancy import invites
from webapp.auth import current_owner
from webapp.blueprints import NavItem, OperatorBlueprint, see_other
from webapp.context import connection, redirect_on_refusal, transaction
from webapp.forms import ID_CONVERTER, PAGE_SIZE, current_url, query_int, split_page

blueprint = OperatorBlueprint("operator_invites", path="invites", tab=NavItem("Invites", 40))


@blueprint.get("/")
def index() -> str:
    """Open invites, the newest first."""
    before = query_int("before")
    with connection() as conn:
        rows, more = split_page(queries.list_open_invites(conn, before=before, limit=PAGE_SIZE + 1))
    return render_template(
        "operator/invites.html",
        invites=rows,
        older=current_url(before=str(rows[-1].id)) if more else None,
        newest=current_url(before=None) if before else None,
    )


@blueprint.action(f"/<{ID_CONVERTER}:invite_id>/revoke")
def revoke(invite_id: int) -> Response:
    """Let nobody in by it any more."""
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        found = queries.get_open_invite(conn, invite_id)
        invites.revoke(conn, found.project_id, found.id, actor=current_owner().handle)
    flash(f"Invite {found.hint} to {found.owner}/{found.project} is revoked.", "success")
    return see_other(".index")
