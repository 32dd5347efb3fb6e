"""The account of who is signed in: who they are, how they come in, and where they are signed in."""

from dataclasses import dataclass
from datetime import datetime

from flask import flash, render_template, request, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from bus.auth import identities, sessions
from bus.auth.identities import Identity
from webapp import auth
from webapp.blueprints import Pages, see_other
from webapp.context import options, providers, reading, refused_to, writing
from webapp.ratelimit import admit

pages = Pages("account", prefix="/account")

_METHODS = {"link": "a one-time link"}


@dataclass(frozen=True)
class Way:
    """A linked sign-in as its owner reads it."""

    id: int
    name: str
    email: str | None
    subject: str
    created_at: datetime
    last_used_at: datetime


@pages.before_request
def limit() -> None:
    """An account changes a few times a year; who sends this much is a program."""
    if request.method == "POST":
        admit("account", str(auth.current_owner().id), options().sign_in_per_minute)


@pages.get("/")
def index() -> str:
    """Handle and e-mail, ways in, sessions."""
    owner = auth.current_owner()
    with reading() as conn:
        ways = [_way(one) for one in identities.list_(conn, owner.id)]
        open_sessions = sessions.list_(conn, owner.id, idle=options().session_idle)
    used = {one.name for one in ways}
    return render_template(
        "account/index.html",
        owner=owner,
        ways=ways,
        addresses_to_use=[one for one in ways if one.email and one.email.lower() != owner.email.lower()],
        # One may have two accounts at a provider; the first offer is a provider that is not linked yet.
        offers=sorted(providers().values(), key=lambda provider: provider.name in used),
        vouched=auth.vouched_by_proxy(),
        sessions=[(one, _method(one.method)) for one in open_sessions],
        here=auth.current_session().id,
    )


@pages.post("/ways/<int:identity_id>/unlink")
def unlink(identity_id: int) -> Response:
    """Take one way in away, never the last, and sign every other browser out: some may have come by it."""
    with refused_to(url_for(".index", _anchor="ways")), writing() as conn:
        owner = auth.current_owner()
        identities.unlink(conn, owner, identity_id)
        sessions.end_all(conn, owner.id, but=auth.current_session().id)
        auth.renew(conn)
    flash("That way in is closed, and your other browsers are signed out.", "success")
    return see_other(".index", _anchor="ways")


@pages.post("/ways/<int:identity_id>/email")
def use_email(identity_id: int) -> Response:
    """Make the verified address of a linked sign-in the account's address."""
    with refused_to(url_for(".index")), writing() as conn:
        address = identities.set_email(conn, auth.current_owner(), identity_id)
        auth.renew(conn)
    flash(f"Your e-mail address is now {address}.", "success")
    return see_other(".index")


@pages.post("/ways/proxy")
def link_proxy() -> Response:
    """Link who the proxy in front says is there."""
    claim = auth.vouched_by_proxy()
    if claim is None:
        raise NotFound
    owner = auth.current_owner()
    with refused_to(url_for(".index", _anchor="ways")), writing() as conn:
        identities.link(conn, owner, claim)
        auth.renew(conn)
    flash("Your company's sign-in is linked.", "success")
    return see_other(".index", _anchor="ways")


@pages.post("/sessions/<int:session_id>/end")
def end_session(session_id: int) -> Response:
    """Sign one browser out."""
    with writing() as conn:
        if not sessions.end(conn, auth.current_owner().id, session_id):
            raise NotFound
    if session_id == auth.current_session().id:
        auth.sign_out()
        return see_other("home.index")
    flash("That browser is signed out.", "success")
    return see_other(".index", _anchor="sessions")


@pages.post("/sessions/end-all")
def end_all_sessions() -> Response:
    """Sign every browser out, this one too."""
    with writing() as conn:
        sessions.end_all(conn, auth.current_owner().id)
    auth.sign_out()
    flash("You are signed out everywhere.", "success")
    return see_other("sign_in.index")


def _way(one: Identity) -> Way:
    name = next((provider.name for provider in providers().values() if provider.issuer == one.issuer), None)
    if name is None:
        name = "The proxy in front" if one.issuer == auth.SSO_ISSUER else one.issuer
    return Way(one.id, name, one.email, one.subject, one.created_at, one.last_used_at)


def _method(method: str) -> str:
    provider = providers().get(method)
    return provider.name if provider is not None else _METHODS.get(method, method)
