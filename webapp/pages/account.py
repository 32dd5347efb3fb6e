"""The owner's account: handle and email address, linked sign-ins, sessions."""

from dataclasses import dataclass
from datetime import datetime

from flask import flash, render_template, request, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from bus.auth import identities, sessions
from bus.auth.identities import Identity
from bus.tenancy import client_grants
from webapp import auth
from webapp.blueprints import OwnerBlueprint, see_other
from webapp.context import connection, options, providers, redirect_on_refusal, transaction
from webapp.ratelimit import enforce_rate_limit
from webapp.suspension import allowed_while_suspended

blueprint = OwnerBlueprint("account", url_prefix="/account")

_METHOD_LABELS = {"link": "one-time link"}


@dataclass(frozen=True)
class LinkedSignIn:
    """A linked identity with the name of its provider."""

    id: int
    name: str
    email: str | None
    subject: str
    created_at: datetime
    last_used_at: datetime


@blueprint.before_request
def limit_account_changes() -> None:
    """Limit the rate of changes; people change their account a few times a year."""
    if request.method == "POST":
        enforce_rate_limit("account", str(auth.current_owner().id), options().sign_in_per_minute)


@blueprint.get("/")
def index() -> str:
    """Show the account."""
    owner = auth.current_owner()
    with connection() as conn:
        sign_ins = [_to_linked_sign_in(identity) for identity in identities.list_identities(conn, owner.id)]
        open_sessions = sessions.list_sessions(conn, owner.id, idle_timeout=options().session_idle_timeout)
        connected_clients = client_grants.list_connected(conn, owner.id)
    linked_names = {sign_in.name for sign_in in sign_ins}
    return render_template(
        "account/index.html",
        owner=owner,
        sign_ins=sign_ins,
        linked_names=linked_names,
        selectable_emails=[
            sign_in for sign_in in sign_ins if sign_in.email and sign_in.email.lower() != owner.email.lower()
        ],
        # A provider can be linked twice, with two accounts; providers that are not linked yet come first.
        offers=sorted(providers().values(), key=lambda provider: provider.name in linked_names),
        proxy_identity=auth.proxy_identity(),
        sessions=[(session, _method_label(session.method)) for session in open_sessions],
        connected_clients=connected_clients,
        current_session_id=auth.current_session().id,
    )


@blueprint.post("/ways/<int:identity_id>/unlink")
@allowed_while_suspended
def unlink(identity_id: int) -> Response:
    """Unlink a sign-in, unless it is the last one, and end all other sessions: they may have been opened with it."""
    owner = auth.current_owner()
    with connection() as conn:
        linked = identities.list_identities(conn, owner.id)
    names = {identity.id: _to_linked_sign_in(identity).name for identity in linked}
    with redirect_on_refusal(url_for(".index", _anchor="ways")), transaction() as conn:
        identities.unlink_identity(conn, owner, identity_id)
        sessions.end_all_sessions(conn, owner.id, except_session_id=auth.current_session().id, actor=owner.handle)
        auth.rotate_session(conn)
    flash(f"{names.get(identity_id, 'Sign-in')} unlinked; other sessions signed out.", "success")
    return see_other(".index", _anchor="ways")


@blueprint.post("/ways/<int:identity_id>/email")
def use_email(identity_id: int) -> Response:
    """Use the verified email address of a linked sign-in for the account."""
    with redirect_on_refusal(url_for(".index")), transaction() as conn:
        email = identities.set_email_from_identity(conn, auth.current_owner(), identity_id)
        auth.rotate_session(conn)
    flash(f"Email address changed to {email}.", "success")
    return see_other(".index")


@blueprint.post("/ways/proxy")
def link_proxy() -> Response:
    """Link the identity that the authenticating proxy asserts."""
    claims = auth.proxy_identity()
    if claims is None:
        raise NotFound
    owner = auth.current_owner()
    with redirect_on_refusal(url_for(".index", _anchor="ways")), transaction() as conn:
        identities.link_identity(conn, owner, claims)
        auth.rotate_session(conn)
    flash("Company sign-in linked.", "success")
    return see_other(".index", _anchor="ways")


@blueprint.post("/sessions/<int:session_id>/end")
@allowed_while_suspended
def end_session(session_id: int) -> Response:
    """End one session."""
    with transaction() as conn:
        if not sessions.end_session(conn, auth.current_owner().id, session_id):
            raise NotFound
    if session_id == auth.current_session().id:
        auth.sign_out()
        return see_other("landing.index")
    flash("Browser signed out.", "success")
    return see_other(".index", _anchor="sessions")


@blueprint.post("/sessions/end-all")
@allowed_while_suspended
def end_all_sessions() -> Response:
    """End all sessions, including this one."""
    owner = auth.current_owner()
    with transaction() as conn:
        sessions.end_all_sessions(conn, owner.id, actor=owner.handle)
    auth.sign_out()
    flash("Signed out everywhere.", "success")
    return see_other("sign_in.index")


def _to_linked_sign_in(identity: Identity) -> LinkedSignIn:
    name = next((provider.name for provider in providers().values() if provider.issuer == identity.issuer), None)
    if name is None:
        name = "Company sign-in" if identity.issuer == auth.SSO_ISSUER else identity.issuer
    return LinkedSignIn(identity.id, name, identity.email, identity.subject, identity.created_at, identity.last_used_at)


def _method_label(method: str) -> str:
    provider = providers().get(method)
    return provider.name if provider is not None else _METHOD_LABELS.get(method, method)
