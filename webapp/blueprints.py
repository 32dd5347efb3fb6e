"""How a page is written: a file in webapp/pages that makes one of these, which holds its routes and its navigation.

Whoever is not signed in sees no page of `Pages` or `ProjectPages`. A page that the world may see says so with
`PublicPages`. What is in the file is found by the application factory; there is no list to add it to.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Blueprint, Response, current_app, g, make_response, redirect, render_template, request, url_for
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as BaseResponse

from bus.tenancy import projects
from bus.tenancy.projects import Project
from webapp.auth import current_owner, viewer
from webapp.context import connection
from webapp.reauth import has_recent_login, redirect_to_reauthentication

View = TypeVar("View", bound=Callable[..., Any])

# A converter for ids in addresses: the range of a PostgreSQL bigint.
ID_CONVERTER = "int(max=9223372036854775807)"
_API_VIEW_ATTRIBUTE = "bus_machine"
_OPERATOR_PREFIX = "/operator"


@dataclass(frozen=True)
class NavItem:
    """A link in the navigation.

    Attributes:
        label: what it says.
        order: where it stands: lower is further to the left.
        endpoint: the view, within the blueprint.
        operator: whether only operators see it.
        when: asked for each page whether the link is there at all; None: always.
    """

    label: str
    order: int
    endpoint: str = "index"
    operator_only: bool = False
    is_visible: Callable[[], bool] | None = None


class PublicBlueprint(Blueprint):
    """Pages that everybody may see."""

    nav_item: NavItem | None = None
    tab: NavItem | None = None
    operator_tab: NavItem | None = None

    def __init__(self, name: str, *, url_prefix: str | None = None) -> None:
        super().__init__(name, __name__, url_prefix=url_prefix)


class OwnerBlueprint(PublicBlueprint):
    """Pages of an owner: whoever is not signed in is sent to sign in, and back here afterwards.

    Args:
        name: of the blueprint, and of the folder in templates/.
        prefix: what the addresses of all its routes begin with.
        entry: its link in the main navigation.
    """

    def __init__(self, name: str, *, url_prefix: str | None = None, nav_item: NavItem | None = None) -> None:
        super().__init__(name, url_prefix=url_prefix)
        self.nav_item = nav_item
        self.before_request(_require_owner)


class OperatorBlueprint(PublicBlueprint):
    """Pages of the operator console, under /operator. For everybody else they are addresses that do not exist.

    What they do they do in others' affairs, so each POST needs somebody who showed lately who they are; see
    webapp/reauth.py. Views are put up with `get` and `act`.

    Args:
        path: what follows /operator in the addresses of all its routes; nothing for the first page.
        tab: its link among the tabs of the console.
        entry: its link in the main navigation.
    """

    def __init__(
        self, name: str, *, path: str = "", tab: NavItem | None = None, nav_item: NavItem | None = None
    ) -> None:
        super().__init__(name, url_prefix=f"{_OPERATOR_PREFIX}/{path}".rstrip("/"))
        self.operator_tab = tab
        self.nav_item = nav_item
        self._return_views: dict[str, str] = {}
        self.before_request(_require_operator)
        self.before_request(self._require_recent_login)

    def action(self, rule: str, *, return_view: str = "index") -> Callable[[View], View]:
        """A view that does something.

        Args:
            back: the view of the page that shows the form, to which one comes back after signing in again.
        """

        def put_up(view: View) -> View:
            self._return_views[view.__name__] = return_view
            return self.post(rule)(view)

        return put_up

    def _require_recent_login(self) -> BaseResponse | None:
        if request.method in ("GET", "HEAD") or has_recent_login():
            return None
        endpoint = f"{self.name}.{self._return_views.get(str(request.endpoint).rpartition('.')[2], 'index')}"
        known = {name for rule in current_app.url_map.iter_rules(endpoint) for name in rule.arguments}
        return redirect_to_reauthentication(
            url_for(endpoint, **{k: v for k, v in (request.view_args or {}).items() if k in known})
        )


def hide_operator_pages() -> None:
    """Answer whoever is no operator as if there were nothing under /operator; ask it before all else.

    By the address and not by the route: what a route answers to a wrong verb, or to a form without its token, would
    tell that it is there.
    """
    if request.path == _OPERATOR_PREFIX or request.path.startswith(f"{_OPERATOR_PREFIX}/"):
        _require_operator()


class ProjectBlueprint(OwnerBlueprint):
    """Pages about one project of the owner, under /admin/projects/<id>/<name>.

    The project in the address is looked up before any view runs: it is `current_project()`, and 404 where there is
    none or it is another owner's. Views take no project, and `url_for` within the blueprint fills it in.

    Args:
        tab: its link among the tabs of a project.
    """

    def __init__(self, name: str, *, tab: NavItem | None = None, path: str | None = None) -> None:
        suffix = name if path is None else path
        super().__init__(name, url_prefix=f"/admin/projects/<{ID_CONVERTER}:project_id>/{suffix}".rstrip("/"))
        self.tab = tab
        self.url_value_preprocessor(_pop_project_id)
        self.url_defaults(_inject_project_id)
        self.before_request(_load_project)


def current_project() -> Project:
    """The project that a page of `ProjectPages` is about; it is the owner's."""
    found: Project = g.bus_project
    return found


def owned_or_404(resource: Any, owner_id: int | None = None) -> Any:
    """What was found, if it belongs to the owner who is signed in; else 404, as for what does not exist.

    Args:
        found: something with an `owner_id`, or None.
        owner_id: whose it is, where it does not say so itself.
    """
    whose = owner_id if owner_id is not None or resource is None else resource.owner_id
    if resource is None or whose != current_owner().id:
        raise NotFound
    return resource


def api_view(view: View) -> View:
    """A view that programs call: without a CSRF token, and with JSON for an answer also when it is refused."""
    setattr(view, _API_VIEW_ATTRIBUTE, True)
    return view


def no_store(view: View) -> View:
    """A view whose answer holds a secret that is shown once: no cache keeps it."""

    @functools.wraps(view)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        g.bus_no_store = True
        return view(*args, **kwargs)

    return wrapped  # type: ignore[return-value]


def is_api_request() -> bool:
    """Whether the view of this request is one that programs call."""
    view = current_app.view_functions.get(request.endpoint or "")
    return bool(getattr(view, _API_VIEW_ATTRIBUTE, False))


def render_page(template: str, part: str | None = None, **values: Any) -> str | Response:
    """Render a page; or only its living part, when that is what the script in the page asks for.

    Args:
        part: the template of the part that `<section data-live>` holds; see templates/parts/live.html.
    """
    if part is not None and request.headers.get("X-Part"):
        response = make_response(render_template(part, **values))
        g.bus_part = True
        return response
    return render_template(template, part=part, **values)


def see_other(endpoint: str, **values: Any) -> BaseResponse:
    """Redirect after a POST, so that reloading the page does not do it again."""
    return redirect(url_for(endpoint, **values), 303)


def _require_operator() -> None:
    owner = viewer()
    if owner is None or not owner.operator:
        raise NotFound


def _require_owner() -> BaseResponse | None:
    if viewer() is not None:
        return None
    # Where a form was sent, the page that shows it is not known; the way back is the start then.
    back = request.full_path.rstrip("?") if request.method in ("GET", "HEAD") else None
    return redirect(url_for("sign_in.index", next=back), 303)


def _pop_project_id(_endpoint: str | None, values: dict[str, Any] | None) -> None:
    g.bus_project_id = (values or {}).pop("project_id", None)


def _inject_project_id(_endpoint: str, values: dict[str, Any]) -> None:
    if g.get("bus_project_id") is not None:
        values.setdefault("project_id", g.bus_project_id)


def _load_project() -> None:
    with connection() as conn:
        g.bus_project = owned_or_404(projects.get(conn, g.bus_project_id))
