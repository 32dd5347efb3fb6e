"""The change of the owner's handle, under which everyone sees the owner and its participants."""

from flask import flash, render_template
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response
from wtforms import StringField
from wtforms.validators import InputRequired

from bus import limits
from bus.tenancy import owners
from webapp.auth import current_owner
from webapp.blueprints import OwnerBlueprint, see_other
from webapp.context import connection, options, show_refusal_on_form, transaction
from webapp.ratelimit import enforce_rate_limit

blueprint = OwnerBlueprint("handle", url_prefix="/account/handle")


class HandleForm(FlaskForm):  # type: ignore[misc]
    """The new handle."""

    handle = StringField(
        "Handle",
        description="1–64 lowercase letters, digits and single hyphens.",
        validators=[InputRequired("Choose a handle.")],
    )


@blueprint.get("/")
def edit() -> str:
    """Show the form, with what a change does."""
    return _render_form(HandleForm(handle=current_owner().handle))


@blueprint.post("/")
def save() -> Response | tuple[str, int]:
    """Change the handle; the old one stays reserved and keeps working."""
    owner, form = current_owner(), HandleForm()
    enforce_rate_limit("account", str(owner.id), options().sign_in_per_minute)
    is_changed = False
    if form.validate():
        with show_refusal_on_form(form, default_field="handle"), transaction() as conn:
            is_changed = owners.rename(conn, owner.id, form.handle.data, actor=owner.handle)
    if form.errors:
        return _render_form(form), 422
    if is_changed:
        flash(f"Handle changed. {owner.handle} stays reserved for you and keeps working.", "success")
    return see_other("account.index")


def _render_form(form: HandleForm) -> str:
    owner = current_owner()
    with connection() as conn:
        former_handles = owners.list_former_handles(conn, owner.id)
    return render_template(
        "handle/edit.html",
        form=form,
        owner=owner,
        former_handles=former_handles,
        left=limits.MAX_OWNER_HANDLES - 1 - len(former_handles),
    )
