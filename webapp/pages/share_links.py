"""Share links of a project's live board: creation, list, revocation."""

from flask import flash, render_template, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse
from wtforms import SelectField

from bus.tenancy import share_links
from webapp.auth import current_owner
from webapp.blueprints import ID_CONVERTER, ProjectBlueprint, current_project, see_other
from webapp.context import connection, redirect_on_refusal, show_refusal_on_form, transaction
from webapp.forms import select_choices
from webapp.one_time_credentials import store_credentials
from webapp.suspension import allowed_while_suspended

blueprint = ProjectBlueprint("share_links", path="share", reads="manage_project", writes="manage_project")

_TTL_CHOICES = select_choices(("1", "1 hour"), ("24", "1 day"), ("168", "7 days"), ("720", "30 days"))


class ShareLinkForm(FlaskForm):  # type: ignore[misc]
    """A new share link."""

    ttl_hours = SelectField("Expires in", choices=_TTL_CHOICES, default="24")


@blueprint.get("/")
def index() -> str:
    """List the share links, newest first, with a form for another."""
    return _render_index(ShareLinkForm(formdata=None))


@blueprint.post("/")
def create() -> BaseResponse | tuple[str, int]:
    """Create a share link and show it once."""
    form, project = ShareLinkForm(), current_project()
    if form.validate():
        with show_refusal_on_form(form), transaction() as conn:
            link = share_links.create(
                conn, project.id, ttl_hours=int(form.ttl_hours.data), actor=current_owner().handle
            )
            key = store_credentials(
                conn,
                "share_link",
                token=link.token,
                project=project.name,
                project_id=project.id,
                expires_at=f"{link.expires_at:%Y-%m-%d %H:%M} UTC",
            )
    if form.errors:
        return _render_index(form), 400
    return see_other("credentials.show", key=key)


@blueprint.post(f"/<{ID_CONVERTER}:link_id>/revoke")
@allowed_while_suspended
def revoke(link_id: int) -> BaseResponse:
    """Revoke a share link."""
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        share_links.revoke(conn, current_project().id, link_id, actor=current_owner().handle)
    flash("Share link revoked.", "success")
    return see_other(".index")


def _render_index(form: ShareLinkForm) -> str:
    project = current_project()
    with connection() as conn:
        links = share_links.list_links(conn, project.id)
    return render_template("share_links/index.html", project=project, links=links, form=form)
