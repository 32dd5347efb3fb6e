"""Signing in with a provider: there, and back again."""

import logging

from flask import flash, redirect, render_template, request, session, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from webapp import auth, login, reauth
from webapp.blueprints import PublicBlueprint, no_store
from webapp.context import addresses, options, providers, redirect_on_refusal
from webapp.errors import render_error_page
from webapp.oauth_state import OAuthState, ProviderError
from webapp.providers import Provider
from webapp.ratelimit import client_address, enforce_rate_limit

blueprint = PublicBlueprint("oauth")

_STATE_KEY, _LINKING_KEY = "attempt", "linking"
_log = logging.getLogger("webapp.vouching")


@blueprint.post("/sign-in/<slug>")
@no_store
def start(slug: str) -> str:
    """Send the browser to a provider, to sign in with it."""
    return _render_provider_redirect(_get_provider(slug), linking_session_id=None)


@blueprint.post("/account/link/<slug>")
@no_store
def start_linking(slug: str) -> str:
    """Send the browser to a provider, to add it to the account of who is signed in."""
    return _render_provider_redirect(_get_provider(slug), linking_session_id=auth.current_session().id)


@blueprint.get("/sign-in/<slug>/callback")
@no_store
def callback(slug: str) -> Response:
    """Take what the provider says. It answers to one attempt, which is forgotten whatever comes of it."""
    provider = _get_provider(slug)
    _enforce_sign_in_limit()
    attempt, linking = OAuthState.from_cookie(session.pop(_STATE_KEY, None)), session.pop(_LINKING_KEY, None)
    if attempt is None:
        raise ProviderError("There is no sign-in under way in this browser. Begin again.")
    answer = request.args.to_dict()
    attempt.verify_callback(slug, answer)
    claim = provider.fetch_identity_claims(attempt, answer, _redirect_uri(slug))
    if linking is None:
        refused = (
            url_for("operator.reauthenticate", next=login.pending_redirect_target())
            if reauth.is_reauthenticating()
            else url_for("sign_in.index")
        )
        with redirect_on_refusal(refused):
            return login.sign_in_identity(claim, slug)
    if auth.viewer() is None or auth.current_session().id != linking:
        raise ProviderError("You were signed out meanwhile. Sign in, then link again.")
    with redirect_on_refusal(url_for("account.index")):
        new = login.link_identity(auth.current_owner(), claim)
    flash(f"{provider.name} is linked." if new else f"{provider.name} was linked already.", "success")
    return redirect(url_for("account.index", _anchor="ways"), 303)


@blueprint.app_errorhandler(ProviderError)
def _handle_provider_error(error: ProviderError) -> Response:
    """Say what went wrong and offer the other ways in; nobody was signed in."""
    # With its cause, which holds no secret of ours: Authlib names what was wrong, and never a code or a token.
    _log.warning("a provider did not vouch: %s", error.message, exc_info=error.__cause__)
    session.pop(_STATE_KEY, None)
    return render_error_page(502 if error.unavailable else 400, error.message, retry_url=url_for("sign_in.index"))


def _render_provider_redirect(provider: Provider, linking_session_id: int | None) -> str:
    """A page that goes on by itself: as the answer to a form, a redirect to another site is what the policy refuses."""
    _enforce_sign_in_limit()
    attempt = OAuthState.create(
        provider.slug, reauthenticate=linking_session_id is None and reauth.is_reauthenticating()
    )
    address = provider.authorization_url(attempt, _redirect_uri(provider.slug))
    session[_STATE_KEY], session[_LINKING_KEY] = attempt.to_cookie(), linking_session_id
    return render_template("oauth/redirect.html", provider=provider, address=address)


def _get_provider(slug: str) -> Provider:
    found = providers().get(slug)
    if found is None:
        raise NotFound
    return found


def _redirect_uri(slug: str) -> str:
    return f"{addresses().web_url}{url_for('oauth.callback', slug=slug)}"


def _enforce_sign_in_limit() -> None:
    enforce_rate_limit("sign-in", client_address(), options().sign_in_per_minute)
