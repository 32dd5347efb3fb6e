"""Accepting an invite signed in: a page that says what will happen, and a button that does it."""

import secrets

from flask import Response, make_response, render_template
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse
from wtforms import HiddenField

from bus import limits
from bus.auth import identities
from bus.errors import BusError
from bus.tenancy import invite_redemption
from bus.tenancy.invite_redemption import Acceptor, InviteOffer
from webapp.auth import current_owner
from webapp.blueprints import OwnerBlueprint, no_store, see_other
from webapp.context import connection, show_refusal_on_form, transaction
from webapp.forms import optional_text_field, store_credentials
from webapp.pages.join import get_offer, limit_code_attempts

blueprint = OwnerBlueprint("accept_invite", url_prefix="/join/<code>/accept")


class AcceptForm(FlaskForm):  # type: ignore[misc]
    """Under which name; and what makes a button that is pressed twice one redemption."""

    name = optional_text_field(
        "Name", limits.MAX_LABEL_LENGTH, description="What you, or your agent, will be called in the project."
    )
    nonce = HiddenField()


@blueprint.get("/")
@no_store
def show(code: str) -> Response:
    """What will happen. Uses nothing up."""
    offer = get_offer(code)
    suggested = None if current_owner().handle == offer.owner else current_owner().handle
    return _render_offer(code, offer, AcceptForm(formdata=None, name=suggested, nonce=secrets.token_hex(16)))


@blueprint.post("/")
@no_store
def accept(code: str) -> BaseResponse:
    """Join, and show the card with the token."""
    form, owner = AcceptForm(), current_owner()
    if form.validate():
        limit_code_attempts(code)
        with connection() as conn:
            verified = {one.email for one in identities.list_identities(conn, owner.id) if one.email is not None}
        # An owner's own address was verified when they signed up, or vouched for by whoever runs the service.
        acceptor = Acceptor(owner.handle, frozenset(verified | {owner.email}))
        try:
            with show_refusal_on_form(form), transaction() as conn:
                granted = invite_redemption.redeem(
                    conn, code, name=form.name.data, nonce=form.nonce.data or None, acceptor=acceptor
                )
                key = store_credentials(
                    conn,
                    "token",
                    token=granted.token,
                    participant=granted.participant,
                    actor=granted.actor,
                    lane=granted.lane,
                    project=granted.project,
                    project_id=None,
                )
        except BusError as error:
            if error.code != "not_found":
                raise
            # What there is to say of an invite that is not there, its page says.
            get_offer(code)
            raise
    if form.errors:
        response = _render_offer(code, get_offer(code), form)
        response.status_code = 400
        return response
    return see_other("credentials.show", key=key)


def _render_offer(code: str, offer: InviteOffer, form: AcceptForm) -> Response:
    return make_response(
        render_template("accept_invite/show.html", code=code, offer=offer, form=form, owner=current_owner())
    )
