"""Signing in and out: the ways in, one-time links, and the word of a proxy."""

from flask import flash, redirect, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response

from bus.auth import login_links, sessions
from webapp import auth, login, reauth
from webapp.blueprints import PublicBlueprint, no_store, see_other
from webapp.context import options, providers, redirect_on_refusal, transaction
from webapp.ratelimit import client_address, enforce_rate_limit

blueprint = PublicBlueprint("sign_in")


@blueprint.get("/sign-in")
def index() -> str | Response:
    """The ways in. `next` is where to go afterwards."""
    wanted = request.args.get("next", "")
    if auth.viewer() is not None:
        return redirect(login.safe_redirect_target(wanted) or url_for("dashboard.index"), 303)
    login.remember_redirect_target(wanted)
    claim = auth.proxy_identity()
    if claim is not None:
        # The proxy has asked already; a second button would ask again.
        enforce_sign_in_limit()
        return login.sign_in_identity(claim, auth.proxy_session_method(claim.subject))
    return render_template("sign_in/index.html", providers=list(providers().values()))


@blueprint.get("/sign-in/link/<token>")
@no_store
def link(token: str) -> str:
    """A button, since programs that preview links follow them too. Says nothing about whether the link is good."""
    return render_template("sign_in/link.html", form=FlaskForm(), token=token)


@blueprint.post("/sign-in/link/<token>")
@no_store
def use_link(token: str) -> Response:
    """Use a link up and sign its owner in."""
    enforce_sign_in_limit()
    after = login.pending_redirect_target()
    refused = url_for("operator.reauthenticate", next=after) if reauth.is_reauthenticating() else url_for(".index")
    with redirect_on_refusal(refused, extra_codes=("not_found",)), transaction() as conn:
        owner_id = login_links.consume_login_link(conn, token)
        # Refused, it is not used up either.
        reauth.require_same_owner(owner_id)
        auth.sign_in(conn, owner_id, "link")
    return redirect(after, 303)


@blueprint.post("/sign-out")
def sign_out() -> Response:
    """End the session of this browser."""
    if auth.viewer() is not None:
        with transaction() as conn:
            sessions.end_session(conn, auth.current_owner().id, auth.current_session().id)
    auth.sign_out()
    flash("You are signed out.", "success")
    return see_other("landing.index")


def enforce_sign_in_limit() -> None:
    """Count one act of signing in by this address."""
    enforce_rate_limit("sign-in", client_address(), options().sign_in_per_minute)
