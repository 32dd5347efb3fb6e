"""Blueprints of the pages: each module in webapp/pages creates one, with its routes and its navigation links.

The class decides who has access: all visitors (`PublicBlueprint`), signed-in owners (`OwnerBlueprint`), those who have
a right in a project (`ProjectBlueprint`) or operators (`OperatorBlueprint`). The application factory finds the modules;
there is no list.
"""

import functools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from flask import Blueprint, Response, current_app, g, make_response, redirect, render_template, request, url_for
from werkzeug.exceptions import Forbidden, NotFound
from werkzeug.wrappers import Response as BaseResponse

from bus.coordination import inbox
from bus.errors import BusError
from bus.rules.member_rights import Right, has_right
from bus.tenancy import memberships, owners, projects
from bus.tenancy.projects import Project
from webapp.auth import current_owner, viewer
from webapp.context import connection
from webapp.pagination import current_url
from webapp.reauth import has_recent_login, redirect_to_reauthentication

View = TypeVar("View", bound=Callable[..., Any])

# A converter for ids in addresses: the range of a PostgreSQL bigint.
ID_CONVERTER = "int(max=9223372036854775807)"
_API_VIEW_ATTRIBUTE = "bus_machine"
_RIGHT_ATTRIBUTE = "bus_right"
_OPERATOR_PREFIX = "/operator"
# Query parameters that carry the name of an owner or a participant.
_NAME_PARAMETERS = ("actor", "owner", "to")


@dataclass(frozen=True)
class NavItem:
    """A link in the navigation.

    Attributes:
        label: its text.
        order: its position; lower is further to the left.
        endpoint: the view within the blueprint.
        operator_only: whether only operators see it.
        is_visible: called for each page to decide whether to show it; None means always.
        icon: its symbol in static/icons.svg.
        is_secondary: whether it is in a menu (account, gear) rather than in the row.
    """

    label: str
    order: int
    icon: str = ""
    endpoint: str = "index"
    is_secondary: bool = False
    operator_only: bool = False
    is_visible: Callable[[], bool] | None = None


class PublicBlueprint(Blueprint):
    """Pages without access control."""

    nav_item: NavItem | None = None
    tab: NavItem | None = None
    operator_tab: NavItem | None = None

    def __init__(self, name: str, *, url_prefix: str | None = None) -> None:
        super().__init__(name, __name__, url_prefix=url_prefix)


class OwnerBlueprint(PublicBlueprint):
    """Pages for signed-in owners; others are redirected to sign in and back.

    Args:
        name: name of the blueprint and of its folder in templates/.
        url_prefix: prefix of all its routes.
        nav_item: its link in the main navigation.
    """

    def __init__(self, name: str, *, url_prefix: str | None = None, nav_item: NavItem | None = None) -> None:
        super().__init__(name, url_prefix=url_prefix)
        self.nav_item = nav_item
        self.before_request(_require_owner)
        self.before_request(_redirect_to_clean_address)
        self.before_request(_redirect_to_present_handle)


class OperatorBlueprint(PublicBlueprint):
    """Pages of the operator console under /operator; 404 for all other visitors, and for suspended operators.

    Actions affect other owners, so each POST requires a recent sign-in; see webapp/reauth.py. Register views with `get`
    and `action`.

    Args:
        name: name of the blueprint.
        path: path below /operator of all its routes; empty for the first page.
        tab: its tab in the console.
        nav_item: its link in the main navigation.
    """

    def __init__(
        self, name: str, *, path: str = "", tab: NavItem | None = None, nav_item: NavItem | None = None
    ) -> None:
        super().__init__(name, url_prefix=f"{_OPERATOR_PREFIX}/{path}".rstrip("/"))
        self.operator_tab = tab
        self.nav_item = nav_item
        self._return_views: dict[str, str] = {}
        self.before_request(_require_operator)
        self.before_request(_redirect_to_clean_address)
        self.before_request(self._require_recent_login)

    def action(self, rule: str, *, return_view: str = "index") -> Callable[[View], View]:
        """Register a POST view that requires a recent sign-in.

        Args:
            rule: the route.
            return_view: the view that shows the form, to return to after reauthentication.
        """

        def register(view: View) -> View:
            self._return_views[view.__name__] = return_view
            return self.post(rule)(view)

        return register

    def _require_recent_login(self) -> BaseResponse | None:
        if request.method in ("GET", "HEAD") or has_recent_login():
            return None
        endpoint = f"{self.name}.{self._return_views.get(str(request.endpoint).rpartition('.')[2], 'index')}"
        arguments = {name for rule in current_app.url_map.iter_rules(endpoint) for name in rule.arguments}
        values = {name: value for name, value in (request.view_args or {}).items() if name in arguments}
        return redirect_to_reauthentication(url_for(endpoint, **values))


def hide_operator_pages() -> None:
    """Answer 404 under /operator unless the viewer is an operator; runs before every other check.

    It checks the path rather than the route: a 405 for a wrong method, or a 400 for a missing CSRF token, would reveal
    that the route exists.
    """
    if request.path == _OPERATOR_PREFIX or request.path.startswith(f"{_OPERATOR_PREFIX}/"):
        _require_operator()


class ProjectBlueprint(OwnerBlueprint):
    """Pages of one project, under /admin/projects/<id>/<path>.

    The project and the viewer's role in it are loaded before the view runs: the project is `current_project()`; 404 if
    it does not exist or the viewer has no role in it, and 403 if the role lacks the right that the view asks for. Views
    take no project id, and `url_for` within the blueprint adds it.

    Args:
        name: name of the blueprint and of its folder in templates/.
        tab: its tab in a project, for those who may read its pages.
        path: path below the project of all its routes; `name` if left out.
        reads: the right that its GET views ask for; `@requires` asks for another one.
        writes: the right that its other views ask for.
    """

    def __init__(
        self,
        name: str,
        *,
        tab: NavItem | None = None,
        path: str | None = None,
        reads: Right = "view",
        writes: Right = "act",
    ) -> None:
        suffix = name if path is None else path
        super().__init__(name, url_prefix=f"/admin/projects/<{ID_CONVERTER}:project_id>/{suffix}".rstrip("/"))
        self.tab = tab
        self.reads: Right = reads
        self.writes: Right = writes
        self.url_value_preprocessor(_pop_project_id)
        self.url_defaults(_inject_project_id)
        self.before_request(_load_project)
        self.before_request(_redirect_to_present_handle)


def current_project() -> Project:
    """The project of a page of a `ProjectBlueprint`, in which the signed-in owner has a role."""
    project: Project = g.bus_project
    return project


def current_role() -> str:
    """The role of the signed-in owner in the current project."""
    role: str = g.bus_role
    return role


def may(right: Right) -> bool:
    """Whether the signed-in owner has a right in the current project; False on a page without one."""
    return has_right(g.get("bus_role"), right)


def requires(right: Right) -> Callable[[View], View]:
    """Mark a view of a `ProjectBlueprint` that asks for another right than the blueprint does."""

    def mark(view: View) -> View:
        setattr(view, _RIGHT_ATTRIBUTE, right)
        return view

    return mark


def required_right(blueprint: ProjectBlueprint, view: object, method: str) -> Right:
    """The right that a view of a project asks for."""
    default = blueprint.reads if method in ("GET", "HEAD", "OPTIONS") else blueprint.writes
    right: Right = getattr(view, _RIGHT_ATTRIBUTE, default)
    return right


def require_right(right: Right) -> None:
    """Refuse the request unless the signed-in owner has a right in the current project.

    Raises:
        Forbidden: the viewer sees the project, so the answer says what is missing.
    """
    if not may(right):
        raise Forbidden(f"Your role in this project is {current_role()}, which does not include this. Ask its owner.")


def api_view(view: View) -> View:
    """Mark a view that programs call: it needs no CSRF token, and its errors are JSON."""
    setattr(view, _API_VIEW_ATTRIBUTE, True)
    return view


def no_store(view: View) -> View:
    """Mark a view whose response contains a secret: no cache may store it."""

    @functools.wraps(view)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        g.bus_no_store = True
        return view(*args, **kwargs)

    return wrapped  # type: ignore[return-value]


def is_api_request() -> bool:
    """Whether the view of this request is marked with `api_view`."""
    return is_api_view(current_app.view_functions.get(request.endpoint or ""))


def is_api_view(view: object) -> bool:
    """Whether a view is marked with `api_view`."""
    return bool(getattr(view, _API_VIEW_ATTRIBUTE, False))


def render_page(template: str, part: str | None = None, **values: Any) -> str | Response:
    """Render a page, or only its live part if the page's script requests that.

    Args:
        template: the template of the page.
        part: the template of its live part; see the macro `live` in templates/parts/ui.html.
        **values: variables of both templates.
    """
    if part is not None and request.headers.get("X-Part"):
        response = make_response(render_template(part, **values))
        g.bus_part = True
        unanswered, overdue = inbox_counts()
        response.headers["X-Inbox"] = f"{unanswered} {overdue}"
        return response
    return render_template(template, part=part, **values)


def inbox_counts() -> tuple[int, int]:
    """The viewer's unanswered and overdue handoffs, which every page shows; zeros if they cannot be read."""
    if "bus_inbox_counts" not in g:
        owner = viewer()
        counts = (0, 0)
        if owner is not None and not g.get("bus_viewer_unknown"):
            # The header must not turn a page into an error.
            with suppress(BusError, psycopg.Error), connection() as conn:
                counts = inbox.count_unanswered(conn, owner.id)
        g.bus_inbox_counts = counts
    counted: tuple[int, int] = g.bus_inbox_counts
    return counted


def see_other(endpoint: str, **values: Any) -> BaseResponse:
    """Redirect after a POST, so that reloading the page does not repeat it."""
    return redirect(url_for(endpoint, **values), 303)


def _require_operator() -> None:
    owner = viewer()
    if owner is None or not owner.may_operate:
        raise NotFound


def _require_owner() -> BaseResponse | None:
    if viewer() is not None:
        return None
    # After a POST the page with its form is unknown, so signing in leads to the inbox.
    return_url = request.full_path.rstrip("?") if request.method in ("GET", "HEAD") else None
    return redirect(url_for("sign_in.index", next=return_url), 303)


def _redirect_to_clean_address() -> BaseResponse | None:
    """Leave out empty query parameters, which a browser sends for each empty field of a filter."""
    if request.method != "GET" or all(request.args.values()):
        return None
    return redirect(current_url(), 302)


def _redirect_to_present_handle() -> BaseResponse | None:
    """Replace a former handle of the owner whose page this is, in the query parameters that carry names."""
    names = {name: request.args[name] for name in _NAME_PARAMETERS if request.args.get(name)}
    if request.method != "GET" or not names:
        return None
    project = g.get("bus_project")
    handle = project.owner if project is not None else current_owner().handle
    with connection() as conn:
        former = owners.list_former_handles_of(conn, handle)
    changes = {
        name: handle + value[len(value.partition("/")[0]) :]
        for name, value in names.items()
        if value.partition("/")[0].lower() in former
    }
    return redirect(current_url(**changes), 301) if changes else None


def _pop_project_id(_endpoint: str | None, values: dict[str, Any] | None) -> None:
    g.bus_project_id = (values or {}).pop("project_id", None)


def _inject_project_id(_endpoint: str, values: dict[str, Any]) -> None:
    if g.get("bus_project_id") is not None:
        values.setdefault("project_id", g.bus_project_id)


def _load_project() -> None:
    with connection() as conn:
        role = memberships.find_role(conn, current_owner().id, g.bus_project_id)
        if role is None:
            raise NotFound
        g.bus_project = projects.get(conn, g.bus_project_id)
    g.bus_role = role
    blueprint = current_app.blueprints[str(request.blueprint)]
    assert isinstance(blueprint, ProjectBlueprint)
    require_right(required_right(blueprint, current_app.view_functions[str(request.endpoint)], request.method))
