"""Whether the service is well: one sentence, then its parts. And signing in again before something is done."""

import os
import socket
from datetime import timedelta

from flask import Response, current_app, render_template, request, url_for

from bus.operations import diagnostics, status
from bus.operations.status import RedisProbe, ServiceStatus
from webapp import login, reauth
from webapp.auth import current_owner
from webapp.blueprints import NavItem, OperatorBlueprint, render_page
from webapp.context import database, providers, settings

blueprint = OperatorBlueprint(
    "operator", tab=NavItem("Overview", 10), nav_item=NavItem("Operator", 90, operator_only=True)
)

_MAX_TABLES = 12


@blueprint.get("/")
def index() -> str | Response:
    """How everything is at this moment; also while Redis is away and workers are dead."""
    state = status.get_status(database(), _get_redis_probe())
    contents = state.details
    here = [] if contents is None else [one for one in contents.processes if not one.is_stale]
    return render_page(
        "operator/overview.html",
        part="operator/_overview.html",
        state=state,
        contents=contents,
        findings=diagnostics.diagnose(state),
        missing_processes=_list_missing_processes(state),
        unread_cap=status.MAX_UNREAD_COUNT,
        requests=sum(int(one.metrics.get("requests_last_minute", 0)) for one in here),
        errors=sum(int(one.metrics.get("errors_last_5_minutes", 0)) for one in here),
        tables=() if contents is None else contents.tables[:_MAX_TABLES],
        others=() if contents is None else contents.tables[_MAX_TABLES:],
        this_process=(socket.gethostname(), os.getpid()),
        length=lambda seconds: timedelta(seconds=seconds),
    )


@blueprint.get("/again")
def reauthenticate() -> str:
    """The ways to show once more who one is. Whoever signs in next in this browser has to be the same owner."""
    back = login.safe_redirect_target(request.args.get("next", "")) or url_for(".index")
    reauth.begin_reauthentication()
    login.remember_redirect_target(back)
    return render_template(
        "operator/reauthenticate.html", owner=current_owner(), providers=list(providers().values()), return_url=back
    )


def _get_redis_probe() -> RedisProbe:
    """One connection to Redis for all looks of this process."""
    found: RedisProbe = current_app.extensions.setdefault("bus.probe", RedisProbe(settings().redis_url))
    return found


def _list_missing_processes(state: ServiceStatus) -> list[str]:
    """The kinds of processes that should run and do not."""
    if state.details is None:
        return []
    kinds = {one.kind for one in state.details.processes if not one.is_stale}
    wanted: list[tuple[str, ...]] = [("gateway", "serve"), ("web", "serve")]
    wanted += [("worker",), ("beat",)] if state.has_redis else []
    return [names[0] for names in wanted if not kinds & set(names)]
