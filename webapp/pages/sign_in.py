"""Signing in and out: the ways in, one-time links, and the word of a proxy."""

from flask import flash, redirect, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response

from bus.auth import login_links, sessions
from webapp import auth, login, reauth
from webapp.blueprints import PublicPages, no_store, see_other
from webapp.context import options, providers, refused_to, writing
from webapp.ratelimit import admit, client_address

pages = PublicPages("sign_in")


@pages.get("/sign-in")
def index() -> str | Response:
    """The ways in. `next` is where to go afterwards."""
    wanted = request.args.get("next", "")
    if auth.viewer() is not None:
        return redirect(login.inside(wanted) or url_for("dashboard.index"), 303)
    login.remember_way_back(wanted)
    claim = auth.vouched_by_proxy()
    if claim is not None:
        # The proxy has asked already; a second button would ask again.
        limit()
        return login.enter(claim, auth.by_header(claim.subject))
    return render_template("sign_in/index.html", providers=list(providers().values()))


@pages.get("/sign-in/link/<token>")
@no_store
def link(token: str) -> str:
    """A button, since programs that preview links follow them too. Says nothing about whether the link is good."""
    return render_template("sign_in/link.html", form=FlaskForm(), token=token)


@pages.post("/sign-in/link/<token>")
@no_store
def use_link(token: str) -> Response:
    """Use a link up and sign its owner in."""
    limit()
    after = login.way_back()
    refused = url_for("operator.again", next=after) if reauth.is_expected() else url_for(".index")
    with refused_to(refused, also=("not_found",)), writing() as conn:
        owner_id = login_links.use(conn, token)
        # Refused, it is not used up either.
        reauth.check(owner_id)
        auth.sign_in(conn, owner_id, "link")
    return redirect(after, 303)


@pages.post("/sign-out")
def sign_out() -> Response:
    """End the session of this browser."""
    if auth.viewer() is not None:
        with writing() as conn:
            sessions.end(conn, auth.current_owner().id, auth.current_session().id)
    auth.sign_out()
    flash("You are signed out.", "success")
    return see_other("home.index")


def limit() -> None:
    """Count one act of signing in by this address."""
    admit("sign-in", client_address(), options().sign_in_per_minute)
