"""The status of the service; and reauthentication for operator actions."""

import os
import socket

from flask import Response, current_app, render_template, request, url_for

from bus.operations import health_summary, status
from bus.operations.status import RedisProbe, ServiceStatus
from webapp import login, reauth
from webapp.auth import current_owner
from webapp.blueprints import NavItem, OperatorBlueprint, render_page
from webapp.context import database, providers, settings

blueprint = OperatorBlueprint(
    "operator",
    tab=NavItem("Overview", 10),
    nav_item=NavItem("Operator", 90, "settings", is_secondary=True, operator_only=True),
)

_MAX_TABLES = 12


@blueprint.get("/")
def index() -> str | Response:
    """Show the current status; works while Redis or the workers are down."""
    state = status.get_status(database(), _get_redis_probe())
    details = state.details
    live_processes = [] if details is None else [process for process in details.processes if not process.is_stale]
    return render_page(
        "operator/overview.html",
        part="operator/_overview.html",
        state=state,
        contents=details,
        findings=health_summary.diagnose(state),
        missing_processes=_list_missing_processes(state),
        unread_cap=status.MAX_UNREAD_COUNT,
        requests=sum(int(process.metrics.get("requests_last_minute", 0)) for process in live_processes),
        errors=sum(int(process.metrics.get("errors_last_5_minutes", 0)) for process in live_processes),
        tables=() if details is None else details.tables[:_MAX_TABLES],
        others=() if details is None else details.tables[_MAX_TABLES:],
        this_process=(socket.gethostname(), os.getpid()),
    )


@blueprint.get("/again")
def reauthenticate() -> str:
    """Show the ways to sign in again; the next sign-in in this browser must be by the same owner."""
    return_url = login.safe_redirect_target(request.args.get("next", "")) or url_for(".index")
    reauth.begin_reauthentication()
    login.remember_redirect_target(return_url)
    return render_template(
        "operator/reauthenticate.html",
        owner=current_owner(),
        providers=list(providers().values()),
        return_url=return_url,
    )


def _get_redis_probe() -> RedisProbe:
    """The probe of this process, which keeps one connection to Redis."""
    probe: RedisProbe = current_app.extensions.setdefault("bus.redis_probe", RedisProbe(settings().redis_url))
    return probe


def _list_missing_processes(state: ServiceStatus) -> list[str]:
    """The kinds of processes that should run and do not."""
    if state.details is None:
        return []
    running_kinds = {process.kind for process in state.details.processes if not process.is_stale}
    required_kinds: list[tuple[str, ...]] = [("gateway", "serve"), ("web", "serve")]
    required_kinds += [("worker",), ("beat",)] if state.has_redis else []
    return [alternatives[0] for alternatives in required_kinds if not running_kinds & set(alternatives)]
