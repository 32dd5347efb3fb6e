"""The account of who is signed in: who they are, how they come in, and where they are signed in."""

from dataclasses import dataclass
from datetime import datetime

from flask import flash, render_template, request, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from bus.auth import identities, sessions
from bus.auth.identities import Identity
from webapp import auth
from webapp.blueprints import OwnerBlueprint, see_other
from webapp.context import connection, options, providers, redirect_on_refusal, transaction
from webapp.ratelimit import enforce_rate_limit

blueprint = OwnerBlueprint("account", url_prefix="/account")

_METHOD_LABELS = {"link": "a one-time link"}


@dataclass(frozen=True)
class LinkedSignIn:
    """A linked sign-in as its owner reads it."""

    id: int
    name: str
    email: str | None
    subject: str
    created_at: datetime
    last_used_at: datetime


@blueprint.before_request
def limit_account_changes() -> None:
    """An account changes a few times a year; who sends this much is a program."""
    if request.method == "POST":
        enforce_rate_limit("account", str(auth.current_owner().id), options().sign_in_per_minute)


@blueprint.get("/")
def index() -> str:
    """Handle and e-mail, sign_ins in, sessions."""
    owner = auth.current_owner()
    with connection() as conn:
        sign_ins = [_to_linked_sign_in(one) for one in identities.list_identities(conn, owner.id)]
        open_sessions = sessions.list_sessions(conn, owner.id, idle_timeout=options().session_idle_timeout)
    used = {one.name for one in sign_ins}
    return render_template(
        "account/index.html",
        owner=owner,
        sign_ins=sign_ins,
        selectable_emails=[one for one in sign_ins if one.email and one.email.lower() != owner.email.lower()],
        # One may have two accounts at a provider; the first offer is a provider that is not linked yet.
        offers=sorted(providers().values(), key=lambda provider: provider.name in used),
        proxy_identity=auth.proxy_identity(),
        sessions=[(one, _method_label(one.method)) for one in open_sessions],
        current_session_id=auth.current_session().id,
    )


@blueprint.post("/ways/<int:identity_id>/unlink")
def unlink(identity_id: int) -> Response:
    """Take one way in away, never the last, and sign every other browser out: some may have come by it."""
    with redirect_on_refusal(url_for(".index", _anchor="ways")), transaction() as conn:
        owner = auth.current_owner()
        identities.unlink_identity(conn, owner, identity_id)
        sessions.end_all_sessions(
            conn, owner.id, except_session_id=auth.current_session().id, actor=owner.handle
        )
        auth.rotate_session(conn)
    flash("That way in is closed, and your other browsers are signed out.", "success")
    return see_other(".index", _anchor="ways")


@blueprint.post("/ways/<int:identity_id>/email")
def use_email(identity_id: int) -> Response:
    """Make the verified address of a linked sign-in the account's address."""
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        address = identities.set_email_from_identity(conn, auth.current_owner(), identity_id)
        auth.rotate_session(conn)
    flash(f"Your e-mail address is now {address}.", "success")
    return see_other(".index")


@blueprint.post("/ways/proxy")
def link_proxy() -> Response:
    """Link who the proxy in front says is there."""
    claim = auth.proxy_identity()
    if claim is None:
        raise NotFound
    owner = auth.current_owner()
    with redirect_on_refusal(url_for(".index", _anchor="ways")), transaction() as conn:
        identities.link_identity(conn, owner, claim)
        auth.rotate_session(conn)
    flash("Your company's sign-in is linked.", "success")
    return see_other(".index", _anchor="ways")


@blueprint.post("/sessions/<int:session_id>/end")
def end_session(session_id: int) -> Response:
    """Sign one browser out."""
    with transaction() as conn:
        if not sessions.end_session(conn, auth.current_owner().id, session_id):
            raise NotFound
    if session_id == auth.current_session().id:
        auth.sign_out()
        return see_other("landing.index")
    flash("That browser is signed out.", "success")
    return see_other(".index", _anchor="sessions")


@blueprint.post("/sessions/end-all")
def end_all_sessions() -> Response:
    """Sign every browser out, this one too."""
    with transaction() as conn:
        sessions.end_all_sessions(conn, auth.current_owner().id, actor=auth.current_owner().handle)
    auth.sign_out()
    flash("You are signed out everywhere.", "success")
    return see_other("sign_in.index")


def _to_linked_sign_in(identity: Identity) -> LinkedSignIn:
    name = next((provider.name for provider in providers().values() if provider.issuer == identity.issuer), None)
    if name is None:
        name = "The proxy in front" if identity.issuer == auth.SSO_ISSUER else identity.issuer
    return LinkedSignIn(identity.id, name, identity.email, identity.subject, identity.created_at, identity.last_used_at)


def _method_label(method: str) -> str:
    provider = providers().get(method)
    return provider.name if provider is not None else _METHOD_LABELS.get(method, method)
