"""Signing in with a provider, and linking one to an account."""

import logging

from flask import flash, redirect, render_template, request, session, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from webapp import auth, login, reauth
from webapp.blueprints import PublicBlueprint, no_store
from webapp.context import addresses, options, providers, redirect_on_refusal
from webapp.errors import render_error_page
from webapp.oauth_client import Provider, ProviderError
from webapp.ratelimit import client_address, enforce_rate_limit
from webapp.suspension import allowed_while_suspended

blueprint = PublicBlueprint("oauth")

_log = logging.getLogger("webapp.oauth")


@blueprint.post("/sign-in/<slug>")
@no_store
@allowed_while_suspended
def start(slug: str) -> str:
    """Redirect to a provider to sign in."""
    return _render_provider_redirect(_get_provider(slug), linking_session_id=None)


@blueprint.post("/account/link/<slug>")
@no_store
def start_linking(slug: str) -> str:
    """Redirect to a provider to link it to the viewer's account."""
    return _render_provider_redirect(_get_provider(slug), linking_session_id=auth.current_session().id)


@blueprint.get("/sign-in/<slug>/callback")
@no_store
def callback(slug: str) -> Response:
    """Finish a sign-in with the parameters from the provider; its state is used up whether it succeeds or not."""
    provider = _get_provider(slug)
    _enforce_sign_in_limit()
    params = request.args.to_dict()
    attempt = provider.attempts.take(session, params.get("state", ""))
    claims = provider.fetch_identity_claims(attempt, params)
    if attempt["linking_session_id"] is None:
        refusal_url = (
            url_for("operator.reauthenticate", next=login.pending_redirect_target())
            if reauth.is_reauthenticating()
            else url_for("sign_in.index")
        )
        with login.choose_account_after_refusal(), redirect_on_refusal(refusal_url):
            return login.sign_in_identity(claims, slug)
    if auth.viewer() is None or auth.current_session().id != attempt["linking_session_id"]:
        raise ProviderError("You were signed out in the meantime. Sign in, then link again.")
    with login.choose_account_after_refusal(), redirect_on_refusal(url_for("account.index")):
        is_new = login.link_identity(auth.current_owner(), claims)
    flash(f"{provider.name} linked." if is_new else f"{provider.name} was already linked.", "success")
    return redirect(url_for("account.index", _anchor="ways"), 303)


@blueprint.app_errorhandler(ProviderError)
def _handle_provider_error(error: ProviderError) -> Response:
    """Show why the sign-in failed, with a link to try again."""
    # The cause contains no secret: Authlib's errors name what was wrong, never a code or a token.
    _log.warning("a sign-in with a provider failed: %s", error.message, exc_info=error.__cause__)
    return render_error_page(502 if error.unavailable else 400, error.message, retry_url=url_for("sign_in.index"))


def _render_provider_redirect(provider: Provider, linking_session_id: int | None) -> str:
    """A page that redirects by itself: the CSP forbids that a form submission redirects to another site."""
    _enforce_sign_in_limit()
    url = provider.start(
        session,
        f"{addresses().web_url}{url_for('oauth.callback', slug=provider.slug)}",
        reauthenticate=linking_session_id is None and reauth.is_reauthenticating(),
        choose_account=login.must_choose_account(),
        linking_session_id=linking_session_id,
    )
    return render_template("oauth/redirect.html", provider=provider, address=url)


def _get_provider(slug: str) -> Provider:
    provider = providers().get(slug)
    if provider is None:
        raise NotFound
    return provider


def _enforce_sign_in_limit() -> None:
    enforce_rate_limit("sign-in", client_address(), options().sign_in_per_minute)
