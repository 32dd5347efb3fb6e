"""The account of who is signed in: who they are and where."""

from flask import flash, render_template
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from bus import sessions
from webapp import visitors
from webapp.engine import options, reading, writing
from webapp.page import Pages, see_other

pages = Pages("account", prefix="/account")


@pages.get("/")
def index() -> str:
    """Handle and e-mail, ways in, sessions."""
    owner = visitors.current_owner()
    with reading() as conn:
        found = sessions.list_(conn, owner.id, idle=options().session_idle)
    return render_template("account/index.html", owner=owner, sessions=found, here=visitors.current_session().id)


@pages.post("/sessions/<int:session_id>/end")
def end_session(session_id: int) -> Response:
    """Sign one browser out."""
    with writing() as conn:
        if not sessions.end(conn, visitors.current_owner().id, session_id):
            raise NotFound
    if session_id == visitors.current_session().id:
        visitors.sign_out()
        return see_other("home.index")
    flash("That browser is signed out.", "success")
    return see_other(".index", _anchor="sessions")


@pages.post("/sessions/end-all")
def end_all_sessions() -> Response:
    """Sign every browser out, this one too."""
    with writing() as conn:
        sessions.end_all(conn, visitors.current_owner().id)
    visitors.sign_out()
    flash("You are signed out everywhere.", "success")
    return see_other("sign_in.index")
