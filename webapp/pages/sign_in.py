"""Signing in by provider, one-time link or authenticating proxy; signing out."""

from flask import flash, redirect, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response

from bus.auth import login_links, sessions
from bus.errors import BusError
from webapp import auth, login, reauth
from webapp.blueprints import PublicBlueprint, no_store, see_other
from webapp.context import options, providers, redirect_on_refusal, transaction
from webapp.ratelimit import client_address, enforce_rate_limit
from webapp.suspension import allowed_while_suspended

blueprint = PublicBlueprint("sign_in")


@blueprint.get("/sign-in")
def index() -> str | Response:
    """Show the ways to sign in; `next` is the address to redirect to afterwards."""
    target = request.args.get("next", "")
    if auth.viewer() is not None:
        return redirect(login.safe_redirect_target(target) or url_for("inbox.index"), 303)
    login.remember_redirect_target(target)
    claims = auth.proxy_identity()
    if claims is not None:
        # The proxy has authenticated the user; no second confirmation is needed.
        enforce_sign_in_limit()
        try:
            return login.sign_in_identity(claims, auth.proxy_session_method(claims.subject))
        except BusError as error:
            if error.code == "unavailable":
                raise
            # An account that came another way: its owner signs in that way here, and links the proxy's identity.
            flash(error.message, "error")
            flash("Sign in the way you know; then link the company sign-in under Account.", "info")
    elif auth.is_proxy_rejected():
        flash(
            "The proxy in front of this server named you, but did not prove itself. The operator must compare"
            " SSO_PROXY_SECRET with the proxy's configuration.",
            "error",
        )
    return render_template("sign_in/index.html", providers=list(providers().values()))


@blueprint.get("/sign-in/link/<token>")
@no_store
def link(token: str) -> str:
    """Show a button instead of signing in, since link previews request the address too; the token is not checked."""
    return render_template("sign_in/link.html", form=FlaskForm(), token=token)


@blueprint.post("/sign-in/link/<token>")
@no_store
@allowed_while_suspended
def use_link(token: str) -> Response:
    """Use a one-time link and sign its owner in."""
    enforce_sign_in_limit()
    target = login.pending_redirect_target()
    refusal_url = url_for("operator.reauthenticate", next=target) if reauth.is_reauthenticating() else url_for(".index")
    with redirect_on_refusal(refusal_url, extra_codes=("not_found",)), transaction() as conn:
        owner_id = login_links.consume_login_link(conn, token)
        # Raising here rolls back the consumption of the link.
        reauth.require_same_owner(owner_id)
        auth.sign_in(conn, owner_id, "link")
    return redirect(target, 303)


@blueprint.post("/sign-out")
@allowed_while_suspended
def sign_out() -> Response:
    """End the session of this browser."""
    if auth.viewer() is not None:
        with transaction() as conn:
            sessions.end_session(conn, auth.current_owner().id, auth.current_session().id)
    auth.sign_out()
    flash("You are signed out.", "success")
    return see_other("landing.index")


def enforce_sign_in_limit() -> None:
    """Count a sign-in attempt of this client address."""
    enforce_rate_limit("sign-in", client_address(), options().sign_in_per_minute)
