"""Accepting an invite while signed in: a page that shows the effects, and the button."""

import secrets

from flask import Response, flash, make_response, render_template
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse
from wtforms import HiddenField

from bus import limits
from bus.auth import identities
from bus.db import Connection
from bus.errors import BusError
from bus.tenancy import invite_redemption
from bus.tenancy.invite_redemption import Acceptor, InviteOffer
from webapp.auth import current_owner
from webapp.blueprints import OwnerBlueprint, no_store, see_other
from webapp.context import connection, show_refusal_on_form, transaction
from webapp.forms import optional_text_field
from webapp.invites import get_offer, limit_code_attempts
from webapp.one_time_credentials import store_token

blueprint = OwnerBlueprint("accept_invite", url_prefix="/join/<code>/accept")


class AcceptForm(FlaskForm):  # type: ignore[misc]
    """The participant's name, and a nonce that makes a repeated submission one redemption."""

    name = optional_text_field("Name", limits.MAX_LABEL_LENGTH, description="The name of your agent in the project.")
    nonce = HiddenField()


@blueprint.get("/")
@no_store
def show(code: str) -> Response:
    """Show what accepting the invite does; does not use it."""
    offer = get_offer(code)
    handle = current_owner().handle
    suggestion = None if handle == offer.owner else handle
    return _render_offer(code, offer, AcceptForm(formdata=None, name=suggestion, nonce=secrets.token_hex(16)))


@blueprint.post("/")
@no_store
def accept(code: str) -> BaseResponse:
    """Join the project and show the token."""
    form = AcceptForm()
    if form.validate():
        limit_code_attempts(code)
        with connection() as conn:
            acceptor = _acceptor(conn)
        try:
            with show_refusal_on_form(form), transaction() as conn:
                issued = invite_redemption.redeem(
                    conn,
                    code,
                    name=form.name.data,
                    nonce=form.nonce.data or None,
                    acceptor=acceptor,
                )
                key = store_token(conn, issued, project_id=None)
        except BusError as error:
            if error.code != "not_found":
                raise
            # The page of the invite explains why it cannot be used.
            get_offer(code)
            raise
    if form.errors:
        response = _render_offer(code, get_offer(code), form)
        response.status_code = 400
        return response
    return see_other("credentials.show", key=key)


@blueprint.post("/person")
@no_store
def join(code: str) -> BaseResponse:
    """Become a member of the project, and show its board."""
    owner = current_owner()
    limit_code_attempts(code)
    try:
        with transaction() as conn:
            project_id = invite_redemption.accept_as_person(conn, code, owner.id, _acceptor(conn))
    except BusError as error:
        if error.code == "not_found":
            # The page of the invite explains why it cannot be used.
            get_offer(code)
        raise
    flash("You joined the project. Its people see you as " + owner.handle + ".", "success")
    return see_other("board.index", project_id=project_id)


def _acceptor(conn: Connection) -> Acceptor:
    """The signed-in owner, with the addresses that are proven to be theirs."""
    owner = current_owner()
    linked = identities.list_identities(conn, owner.id)
    # The owner's own address was verified at sign-up, or set by the operator.
    emails = {owner.email, *(identity.email for identity in linked if identity.email is not None)}
    return Acceptor(owner.handle, frozenset(emails))


def _render_offer(code: str, offer: InviteOffer, form: AcceptForm) -> Response:
    page = render_template("accept_invite/show.html", code=code, offer=offer, form=form, owner=current_owner())
    return make_response(page)
