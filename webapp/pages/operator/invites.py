"""Every invite that lets somebody in at this moment."""

from flask import flash, render_template, url_for
from werkzeug.wrappers import Response

from bus.operations import queries
from bus.tenancy import invites
from webapp.auth import current_owner
from webapp.blueprints import Entry, OperatorPages, see_other
from webapp.context import reading, refused_to, writing
from webapp.forms import ID, PER_PAGE, asked_number, split, this_page

pages = OperatorPages("operator_invites", path="invites", tab=Entry("Invites", 40))


@pages.get("/")
def index() -> str:
    """Open invites, the newest first."""
    before = asked_number("before")
    with reading() as conn:
        rows, more = split(queries.list_invites(conn, before=before, limit=PER_PAGE + 1))
    return render_template(
        "operator/invites.html",
        invites=rows,
        older=this_page(before=str(rows[-1].id)) if more else None,
        newest=this_page(before=None) if before else None,
    )


@pages.act(f"/<{ID}:invite_id>/revoke")
def revoke(invite_id: int) -> Response:
    """Let nobody in by it any more."""
    with refused_to(url_for(".index")), writing() as conn:
        found = queries.get_invite(conn, invite_id)
        invites.revoke(conn, found.project_id, found.id, actor=current_owner().handle)
    flash(f"Invite {found.hint} to {found.owner}/{found.project} is revoked.", "success")
    return see_other(".index")
