"""Signing in with a provider: there, and back again."""

import logging

from flask import flash, redirect, render_template, request, session, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from webapp import auth, login, reauth
from webapp.blueprints import PublicPages, no_store
from webapp.context import addresses, options, providers, refused_to
from webapp.errors import error_page
from webapp.oauth_state import Attempt, ProviderError
from webapp.providers import Provider
from webapp.ratelimit import admit, client_address

pages = PublicPages("vouching")

_ATTEMPT, _LINKING = "attempt", "linking"
_log = logging.getLogger("webapp.vouching")


@pages.post("/sign-in/<slug>")
@no_store
def start(slug: str) -> str:
    """Send the browser to a provider, to sign in with it."""
    return _send_off(_provider(slug), linking=None)


@pages.post("/account/link/<slug>")
@no_store
def start_linking(slug: str) -> str:
    """Send the browser to a provider, to add it to the account of who is signed in."""
    return _send_off(_provider(slug), linking=auth.current_session().id)


@pages.get("/sign-in/<slug>/callback")
@no_store
def callback(slug: str) -> Response:
    """Take what the provider says. It answers to one attempt, which is forgotten whatever comes of it."""
    provider = _provider(slug)
    _limit()
    attempt, linking = Attempt.restore(session.pop(_ATTEMPT, None)), session.pop(_LINKING, None)
    if attempt is None:
        raise ProviderError("There is no sign-in under way in this browser. Begin again.")
    answer = request.args.to_dict()
    attempt.check(slug, answer)
    claim = provider.claim(attempt, answer, _redirect_uri(slug))
    if linking is None:
        refused = url_for("operator.again", next=login.way_back()) if reauth.is_expected() else url_for("sign_in.index")
        with refused_to(refused):
            return login.enter(claim, slug)
    if auth.viewer() is None or auth.current_session().id != linking:
        raise ProviderError("You were signed out meanwhile. Sign in, then link again.")
    with refused_to(url_for("account.index")):
        new = login.link(auth.current_owner(), claim)
    flash(f"{provider.name} is linked." if new else f"{provider.name} was linked already.", "success")
    return redirect(url_for("account.index", _anchor="ways"), 303)


@pages.app_errorhandler(ProviderError)
def _failed(error: ProviderError) -> Response:
    """Say what went wrong and offer the other ways in; nobody was signed in."""
    # With its cause, which holds no secret of ours: Authlib names what was wrong, and never a code or a token.
    _log.warning("a provider did not vouch: %s", error.message, exc_info=error.__cause__)
    session.pop(_ATTEMPT, None)
    return error_page(502 if error.away else 400, error.message, again=url_for("sign_in.index"))


def _send_off(provider: Provider, linking: int | None) -> str:
    """A page that goes on by itself: as the answer to a form, a redirect to another site is what the policy refuses."""
    _limit()
    attempt = Attempt.begin(provider.slug, again=linking is None and reauth.is_expected())
    address = provider.address(attempt, _redirect_uri(provider.slug))
    session[_ATTEMPT], session[_LINKING] = attempt.keep(), linking
    return render_template("vouching/leaving.html", provider=provider, address=address)


def _provider(slug: str) -> Provider:
    found = providers().get(slug)
    if found is None:
        raise NotFound
    return found


def _redirect_uri(slug: str) -> str:
    return f"{addresses().web}{url_for('vouching.callback', slug=slug)}"


def _limit() -> None:
    admit("sign-in", client_address(), options().sign_in_per_minute)
