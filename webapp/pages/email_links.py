"""The links of e-mails: confirm an address, and unsubscribe it. The token in the address is the proof."""

from flask import render_template
from flask_wtf import FlaskForm

from bus.notifications import mail_addresses
from bus.notifications.mail_addresses import MailAddress
from webapp.blueprints import PublicBlueprint, api_view, no_store
from webapp.context import connection, options, transaction
from webapp.ratelimit import client_address, enforce_rate_limit

blueprint = PublicBlueprint("email_links", url_prefix="/email")


@blueprint.get("/confirm/<token>")
@no_store
def confirm(token: str) -> str | tuple[str, int]:
    """Show a button instead of confirming, since link previews and mail filters request the address too."""
    with connection() as conn:
        address = mail_addresses.find_by_confirmation(conn, token)
    return _render("confirm", address, token)


@blueprint.post("/confirm/<token>")
@no_store
def use_confirmation(token: str) -> str | tuple[str, int]:
    """Confirm the address."""
    _enforce_limit()
    with transaction() as conn:
        address = mail_addresses.find_by_confirmation(conn, token)
        if address is not None:
            mail_addresses.confirm(conn, address)
    return _render("confirmed", address, token)


@blueprint.get("/unsubscribe/<token>")
@no_store
def unsubscribe(token: str) -> str | tuple[str, int]:
    """Show a button; see `confirm`."""
    with connection() as conn:
        address = mail_addresses.find_by_unsubscription(conn, token)
    return _render("unsubscribe", address, token)


@blueprint.post("/unsubscribe/<token>")
@api_view
@no_store
def use_unsubscription(token: str) -> str | tuple[str, int]:
    """Unsubscribe the address; mail programs send this with one click, without cookies (RFC 8058)."""
    _enforce_limit()
    with transaction() as conn:
        address = mail_addresses.find_by_unsubscription(conn, token)
        if address is not None:
            mail_addresses.unsubscribe(conn, address)
    return _render("unsubscribed", address, token)


def _render(step: str, address: MailAddress | None, token: str) -> str | tuple[str, int]:
    page = render_template("email_links/show.html", form=FlaskForm(), step=step, address=address, token=token)
    return page if address is not None else (page, 404)


def _enforce_limit() -> None:
    enforce_rate_limit("email-link", client_address(), options().sign_in_per_minute)
