"""Filters and globals of the templates: navigation, assets, counts, durations and times."""

import hashlib
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from flask import Flask, current_app, g, request, url_for
from markupsafe import Markup

from bus import __version__
from bus.config.settings import serves_oauth
from bus.coordination import dashboard
from bus.coordination.inbox import COUNT_CAP
from bus.errors import BusError
from bus.rules import text_format
from webapp import billing, identity, rich_text, svg_charts
from webapp.auth import viewer
from webapp.blueprints import NavItem, OperatorBlueprint, ProjectBlueprint, PublicBlueprint, inbox_counts, may
from webapp.context import addresses, connection, options, settings
from webapp.event_runs import day_name, event_runs
from webapp.forms import SCOPE_LABELS
from webapp.headers import csp_nonce
from webapp.help_pages import help_url
from webapp.reauth import has_recent_login
from webapp.suggestions import suggested_values
from webapp.token_connection import mark_secret


@dataclass(frozen=True, slots=True)
class NavLink:
    """A link of a navigation, whether the current page belongs to it, and the number beside it."""

    item: NavItem
    url: str
    is_current: bool
    count: int = 0


# The first marker in a User-Agent header names the browser and the system: Chrome's contains "Safari" too.
_BROWSERS = (("Edg", "Edge"), ("OPR", "Opera"), ("Firefox", "Firefox"), ("Chrom", "Chrome"), ("Safari", "Safari"))
_SYSTEMS = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Mac OS", "macOS"),
    ("Linux", "Linux"),
)


def init_app(app: Flask) -> None:
    """Register the filters and globals; call it when every page is registered."""
    assert app.static_folder is not None
    versions = {path.name: _content_hash(path) for path in Path(app.static_folder).iterdir() if path.is_file()}

    def asset(name: str) -> str:
        return url_for("static", filename=name, v=versions[name])

    blueprints = list(app.blueprints.values())
    rights = {each.name: each.reads for each in blueprints if isinstance(each, ProjectBlueprint)}
    nav_items = _collect_nav_items(blueprints, "nav_item")
    project_items = _collect_nav_items(blueprints, "tab")
    operator_items = _collect_nav_items(blueprints, "operator_tab")

    def navigation(secondary: bool = False) -> list[NavLink]:
        """The links of the main navigation that the viewer may follow, or those of the account menu."""
        owner = viewer()
        return [
            NavLink(item, url_for(f"{name}.{item.endpoint}"), request.blueprint == name or _is_current_section(name))
            for name, item in nav_items
            if item.is_secondary == secondary
            and owner is not None
            and (owner.may_operate or not item.operator_only)
            and (item.is_visible is None or item.is_visible())
        ]

    def operator_tabs() -> list[NavLink]:
        return [
            NavLink(item, url_for(f"{name}.{item.endpoint}"), request.blueprint == name)
            for name, item in operator_items
        ]

    def project_tabs(secondary: bool = False) -> list[NavLink]:
        """The tabs of the current project, or the links of its gear menu."""
        project, counts = g.bus_project, {} if secondary else _project_counts()
        return [
            NavLink(
                item,
                url_for(f"{name}.{item.endpoint}", project_id=project.id),
                request.blueprint == name,
                counts.get(name, 0),
            )
            for name, item in project_items
            if item.is_secondary == secondary and may(rights[name])
        ]

    app.jinja_env.globals.update(
        asset=asset,
        navigation=navigation,
        operator_tabs=operator_tabs,
        project_tabs=project_tabs,
        csp_nonce=csp_nonce,
        viewer=viewer,
        addresses=addresses,
        options=options,
        legal_url=legal_url,
        serves_oauth=lambda: serves_oauth(settings()),
        billing_enabled=billing.is_billing_enabled,
        swatch=svg_charts.swatch,
        bar=svg_charts.bar,
        bubble=svg_charts.bubble,
        sparkline=svg_charts.sparkline,
        format_percent=text_format.format_percent,
        format_seconds=text_format.format_seconds,
        has_recent_login=has_recent_login,
        may=may,
        now=lambda: datetime.now(UTC),
        identity=identity.describe,
        version=__version__,
        inbox_counts=inbox_counts,
        switchable_projects=_switchable_projects,
        suggested_values=suggested_values,
        help_url=help_url,
        link_targets=rich_text.link_targets,
        viewed_project=lambda: g.get("bus_project"),
    )
    app.jinja_env.filters.update(
        relative_time=relative_time,
        absolute_time=absolute_time,
        duration=text_format.format_duration,
        pluralize=text_format.pluralize,
        browser_name=browser_name,
        age=age,
        excerpt=text_format.excerpt,
        clock_time=clock_time,
        short_ref=text_format.shorten_ref,
        capped=format_capped,
        event_runs=event_runs,
        day_name=day_name,
        unindent=unindent,
        rich_text=rich_text.render_text,
        url_host=url_host,
        mark_secret=mark_secret,
        scope_label=SCOPE_LABELS.__getitem__,
    )
    app.jinja_env.trim_blocks = True
    app.jinja_env.lstrip_blocks = True


def legal_url(name: str) -> str | None:
    """The address of the `terms` or the `privacy` notice: here if the operator supplies a file, else elsewhere."""
    pages = {
        "terms": (options().terms_file, options().terms_url),
        "privacy": (options().privacy_file, options().privacy_url),
    }
    file, url = pages[name]
    return url_for(f"legal.{name}") if file else url


def relative_time(at: datetime | None, default: str = "never") -> Markup | str:
    """A `<time>` element such as `5 minutes ago`, which the script keeps current; its tooltip is the exact time."""
    if at is None:
        return default
    return _time_element(at, text_format.format_relative_time(at, datetime.now(UTC)), live="long")


def age(at: datetime) -> Markup:
    """A `<time>` element in the fewest characters, such as `18 min`, which the script keeps current."""
    return _time_element(at, text_format.format_age(at, datetime.now(UTC)), live="short")


def absolute_time(at: datetime) -> Markup:
    """A `<time>` element with the time to the second, in UTC."""
    return _time_element(at, f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")


def clock_time(at: datetime) -> Markup:
    """A `<time>` element with the time of day; the script shows it in the viewer's time zone."""
    exact = at.astimezone(UTC)
    return Markup('<time datetime="{}" data-clock>{:%H:%M:%S} UTC</time>').format(
        exact.isoformat(timespec="seconds"), exact
    )


def format_capped(count: int) -> str:
    """A count of the inbox, which stops at its cap: `99+`."""
    return f"{COUNT_CAP - 1}+" if count >= COUNT_CAP else str(count)


def unindent(html: str) -> Markup:
    """Leave the indentation of lines out, a sixth of a board, which is sent to many viewers at every change."""
    return Markup(re.sub(r"\n\s+", "\n", html))  # noqa: S704 - the filter of a block gets its rendered markup


def browser_name(user_agent: str) -> str:
    """The browser of a User-Agent header: `Firefox on Windows`."""
    browser = next((name for marker, name in _BROWSERS if marker in user_agent), None)
    system = next((name for marker, name in _SYSTEMS if marker in user_agent), None)
    if browser is None:
        return user_agent.partition("/")[0][:40] or "Unknown browser"
    return f"{browser} on {system}" if system else browser


def url_host(url: str) -> str:
    """The host of a URL, with its port if it has one."""
    return urlsplit(url).netloc


def _time_element(at: datetime, text: str, *, live: str = "") -> Markup:
    exact = at.astimezone(UTC)
    # Rows are many; the script adds their tooltips.
    title = "" if live == "short" else Markup(' title="{:%Y-%m-%d %H:%M:%S} UTC"').format(exact)
    return Markup('<time datetime="{:%Y-%m-%dT%H:%M:%SZ}"{}{}>{}</time>').format(
        exact, title, Markup(' data-ago="{}"').format(live) if live else "", text
    )


def _project_counts() -> dict[str, int]:
    """The numbers on the tabs of the current project: unanswered handoffs and open tasks."""
    if "bus_project_counts" not in g:
        counts = {}
        # The header must not turn a page into an error.
        with suppress(BusError, psycopg.Error), connection() as conn:
            handoffs, tasks = dashboard.count_open_work(conn, g.bus_project.id)
            counts = {"handoffs": handoffs, "tasks": tasks}
        g.bus_project_counts = counts
    counted: dict[str, int] = g.bus_project_counts
    return counted


def _switchable_projects() -> list[tuple[int, str]]:
    """The projects of the viewer that were active last, for the project switcher."""
    owner = viewer()
    if owner is None:
        return []
    with suppress(BusError, psycopg.Error), connection() as conn:
        return dashboard.list_recent_names(conn, owner.id)
    return []


def _is_current_section(blueprint_name: str) -> bool:
    """Whether the current page lies below a link: projects below their list, operator pages below the first one."""
    if blueprint_name == "operator":
        return isinstance(current_app.blueprints.get(request.blueprint or ""), OperatorBlueprint)
    return blueprint_name == "projects" and "bus_project" in g


def _collect_nav_items(blueprints: Iterable[object], attribute: str) -> list[tuple[str, NavItem]]:
    """The navigation items of all blueprints with the blueprint's name, in the order in which they are shown."""
    items = [
        (blueprint.name, getattr(blueprint, attribute))
        for blueprint in blueprints
        if isinstance(blueprint, PublicBlueprint) and getattr(blueprint, attribute) is not None
    ]
    return sorted(items, key=lambda item: (item[1].order, item[0]))


def _content_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
