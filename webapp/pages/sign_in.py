"""Signing in and out."""

from flask import flash, redirect, render_template, request, session, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response

from bus import login_links, sessions
from webapp import visitors
from webapp.engine import refused_to, writing
from webapp.page import PublicPages, no_store, see_other

pages = PublicPages("sign_in")


@pages.get("/sign-in")
def index() -> str | Response:
    """The ways in. `next` is where to go afterwards."""
    wanted = request.args.get("next", "")
    if visitors.viewer() is not None:
        return redirect(_inside(wanted) or url_for("dashboard.index"), 303)
    if _inside(wanted):
        session["next"] = wanted
    return render_template("sign_in/index.html")


@pages.get("/sign-in/link/<token>")
@no_store
def link(token: str) -> str:
    """A button, since programs that preview links follow them too. Says nothing about whether the link is good."""
    return render_template("sign_in/link.html", form=FlaskForm(), token=token)


@pages.post("/sign-in/link/<token>")
@no_store
def use_link(token: str) -> Response:
    """Use a link up and sign its owner in."""
    with refused_to(url_for(".index")), writing() as conn:
        owner_id = login_links.use(conn, token)
        after = way_back()
        visitors.sign_in(conn, owner_id, "link")
    return redirect(after, 303)


@pages.post("/sign-out")
def sign_out() -> Response:
    """End the session of this browser."""
    if visitors.viewer() is not None:
        with writing() as conn:
            sessions.end(conn, visitors.current_owner().id, visitors.current_session().id)
    visitors.sign_out()
    flash("You are signed out.", "success")
    return see_other("home.index")


def way_back() -> str:
    """Where somebody who signs in was going. Ask before signing in, which forgets it."""
    return _inside(session.get("next", "")) or url_for("dashboard.index")


def _inside(address: str) -> str | None:
    """The address, if it is one of ours: a path, which no browser takes for another host."""
    good = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if good and "\\" not in address else None
