"""Whether the service is well: one sentence, then its parts. And signing in again before something is done."""

import os
import socket
from datetime import timedelta

from flask import Response, current_app, render_template, request, url_for

from bus.operations import diagnostics, status
from bus.operations.status import Condition, Probe
from webapp import login, reauth
from webapp.auth import current_owner
from webapp.blueprints import Entry, OperatorPages, render
from webapp.context import database, providers, settings

pages = OperatorPages("operator", tab=Entry("Overview", 10), entry=Entry("Operator", 90, operator=True))

_TABLES = 12


@pages.get("/")
def index() -> str | Response:
    """How everything is at this moment; also while Redis is away and workers are dead."""
    state = status.look(database(), _probe())
    contents = state.contents
    here = [] if contents is None else [one for one in contents.processes if not one.is_gone]
    return render(
        "operator/overview.html",
        part="operator/_overview.html",
        state=state,
        contents=contents,
        problems=diagnostics.judge(state),
        missing=_missing(state),
        most_unread=status.UNREAD_CAP,
        requests=sum(int(one.figures.get("requests_last_minute", 0)) for one in here),
        errors=sum(int(one.figures.get("errors_last_5_minutes", 0)) for one in here),
        tables=() if contents is None else contents.tables[:_TABLES],
        others=() if contents is None else contents.tables[_TABLES:],
        me=(socket.gethostname(), os.getpid()),
        length=lambda seconds: timedelta(seconds=seconds),
    )


@pages.get("/again")
def again() -> str:
    """The ways to show once more who one is. Whoever signs in next in this browser has to be the same owner."""
    back = login.inside(request.args.get("next", "")) or url_for(".index")
    reauth.expect()
    login.remember_way_back(back)
    return render_template(
        "operator/again.html", owner=current_owner(), providers=list(providers().values()), back=back
    )


def _probe() -> Probe:
    """One connection to Redis for all looks of this process."""
    found: Probe = current_app.extensions.setdefault("bus.probe", Probe(settings().redis_url))
    return found


def _missing(state: Condition) -> list[str]:
    """The kinds of processes that should run and do not."""
    if state.contents is None:
        return []
    kinds = {one.kind for one in state.contents.processes if not one.is_gone}
    wanted: list[tuple[str, ...]] = [("gateway", "serve"), ("web", "serve")]
    wanted += [("worker",), ("beat",)] if state.has_redis else []
    return [names[0] for names in wanted if not kinds & set(names)]
