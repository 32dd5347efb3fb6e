"""What templates know beside what their views tell them: the navigation, times as people say them, the assets."""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flask import Flask, current_app, g, request, url_for
from markupsafe import Markup

from webapp import billing, svg_charts
from webapp.auth import viewer
from webapp.blueprints import NavItem, OperatorBlueprint, PublicBlueprint
from webapp.context import addresses, options
from webapp.headers import csp_nonce
from webapp.reauth import has_recent_login

_DURATION_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60))


def init_app(app: Flask) -> None:
    """Give the templates what they use; call it when every page is registered."""
    assert app.static_folder is not None
    versions = {path.name: _content_hash(path) for path in Path(app.static_folder).iterdir() if path.is_file()}

    def asset(name: str) -> str:
        return url_for("static", filename=name, v=versions[name])

    blueprints = list(app.blueprints.values())
    entries, tabs, consoles = (_collect_nav_items(blueprints, which) for which in ("nav_item", "tab", "operator_tab"))

    def navigation() -> list[tuple[str, str, bool]]:
        """Label, address and whether the page at hand is behind it, for each link that the viewer may follow."""
        owner = viewer()
        return [
            (entry.label, url_for(f"{name}.{entry.endpoint}"), request.blueprint == name or _is_current_section(name))
            for name, entry in entries
            if owner is not None
            and (owner.operator or not entry.operator_only)
            and (entry.is_visible is None or entry.is_visible())
        ]

    def operator_tabs() -> list[tuple[str, str, bool]]:
        return [(tab.label, url_for(f"{name}.{tab.endpoint}"), request.blueprint == name) for name, tab in consoles]

    def project_tabs() -> list[tuple[str, str, bool]]:
        project = g.bus_project
        return [
            (tab.label, url_for(f"{name}.{tab.endpoint}", project_id=project.id), request.blueprint == name)
            for name, tab in tabs
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
        billing_enabled=billing.is_billing_enabled,
        swatch=svg_charts.swatch,
        bar=svg_charts.bar,
        bubble=svg_charts.bubble,
        format_seconds=svg_charts.format_seconds,
        has_recent_login=has_recent_login,
        now=lambda: datetime.now(UTC),
    )
    app.jinja_env.filters.update(
        relative_time=relative_time,
        absolute_time=absolute_time,
        duration=duration,
        pluralize=pluralize,
        browser_name=browser_name,
    )
    app.jinja_env.trim_blocks = True
    app.jinja_env.lstrip_blocks = True


def relative_time(at: datetime | None, default: str = "never") -> Markup | str:
    """A time as people say it, with the exact one in its tooltip and for machines: `5 minutes ago`, `in 2 days`."""
    if at is None:
        return default
    return _time_element(at, format_relative_time(at, datetime.now(UTC)), live=True)


def format_relative_time(at: datetime, now: datetime) -> str:
    """`5 minutes ago`, `in 2 days`, `just now`; from 60 days on the date."""
    seconds = (now - at).total_seconds()
    size = abs(seconds)
    if size < 45:
        return "just now" if seconds >= 0 else "in a moment"
    if size >= 60 * 86_400:
        return f"{at:%-d %b %Y}"
    said = _in_largest_unit(size)
    return f"{said} ago" if seconds > 0 else f"in {said}"


def absolute_time(at: datetime) -> Markup:
    """The time itself, to the second, in UTC."""
    return _time_element(at, f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")


def duration(value: timedelta | float) -> str:
    """How long something lasts, in its largest unit: `30 minutes`."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    return _in_largest_unit(seconds) if seconds >= 45 else f"{max(0, round(seconds))} s"


def pluralize(quantity: int, singular: str, plural: str | None = None) -> str:
    """A number with its noun: `1 post`, `12,000 posts`."""
    return f"{quantity:,} {singular if quantity == 1 else plural or singular + 's'}"


def browser_name(user_agent: str) -> str:
    """What a browser that says this of itself is called: `Firefox on Windows`."""
    names = (("Edg", "Edge"), ("OPR", "Opera"), ("Firefox", "Firefox"), ("Chrom", "Chrome"), ("Safari", "Safari"))
    systems = (
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Android", "Android"),
        ("Windows", "Windows"),
        ("Mac OS", "macOS"),
        ("Linux", "Linux"),
    )
    name = next((said for word, said in names if word in user_agent), None)
    system = next((said for word, said in systems if word in user_agent), None)
    if name is None:
        return user_agent.partition("/")[0][:40] or "An unknown browser"
    return f"{name} on {system}" if system else name


def _in_largest_unit(seconds: float) -> str:
    for unit, size in _DURATION_UNITS:
        # Rounded up to the unit where it is nearly one, so that nothing lasts 60 minutes.
        if seconds >= size * 0.99:
            return pluralize(max(1, round(seconds / size)), unit)
    return "1 minute"


def _time_element(at: datetime, text: str, *, live: bool = False) -> Markup:
    exact = at.astimezone(UTC)
    return Markup('<time datetime="{}" title="{} UTC"{}>{}</time>').format(
        exact.isoformat(timespec="seconds"),
        f"{exact:%Y-%m-%d %H:%M:%S}",
        Markup(" data-ago") if live else "",
        text,
    )


def _is_current_section(blueprint_name: str) -> bool:
    """Projects are behind the link of the page that lists them, and the console behind its first page."""
    if blueprint_name == "operator":
        return isinstance(current_app.blueprints.get(request.blueprint or ""), OperatorBlueprint)
    return blueprint_name == "projects" and "bus_project" in g


def _collect_nav_items(blueprints: Iterable[object], attribute: str) -> list[tuple[str, NavItem]]:
    found = [
        (pages.name, getattr(pages, attribute))
        for pages in blueprints
        if isinstance(pages, PublicBlueprint) and getattr(pages, attribute) is not None
    ]
    return sorted(found, key=lambda pair: (pair[1].order, pair[0]))


def _content_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
