"""Conversion of the engine's dataclasses to JSON-serialisable values."""

import dataclasses
import typing
from collections.abc import Callable
from datetime import datetime
from functools import cache, lru_cache
from operator import attrgetter
from typing import Any, get_args, get_origin

import msgspec

from bus.coordination.digest import Digest
from bus.coordination.leases import LiveLease, OverlappingLease
from bus.coordination.ledger import Event, EventPage
from bus.coordination.posts import PostPage
from bus.coordination.task_queries import Task

UNREAD_FIELD = "unread"
# Fields that the engine returns for the gateway and not for the client.
_INTERNAL_FIELDS = frozenset({UNREAD_FIELD, "surfacing", "taken", "cursor_move"})
# Fields that the original service does not have, and the values with which they say nothing: every byte is context.
_SILENT_VALUES: dict[type, dict[str, Any]] = {
    LiveLease: {"mode": "exclusive"},
    OverlappingLease: {"note": None},
    Task: {"priority": 2},
}
_SILENT_PAYLOAD_VALUES: dict[str, dict[str, Any]] = {
    "post": {"reply_to": None, "recipients": 1},
    "lease": {"mode": "exclusive", "contended": 0},
}
CUT_BODIES_HINT = (
    "Long list: a body with body_length ends at …; read_posts with post_ids=[…] or whole=true returns it whole."
)


# Agents read the same posts, leases and events again and again.
@lru_cache(maxsize=8192)
def format_time(time: datetime) -> str:
    """Format a time for clients: ISO 8601, UTC, milliseconds, `Z`."""
    return f"{time.isoformat(timespec='milliseconds')[:-6]}Z"


def render(value: Any) -> Any:
    """Convert an engine result to JSON-serialisable values, without the caller's unread count.

    Absent optional fields are null, not missing. Those whose default in the dataclass is None, and those with one of
    _SILENT_VALUES, are left out; the original service does not have them.
    """
    special = _RENDERERS.get(type(value))
    if special is not None:
        return special(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _build_renderer(type(value))(value)
    return value


def _render_post_page(page: PostPage) -> dict[str, Any]:
    rendered: dict[str, Any] = {"posts": msgspec.Raw(page.posts_json.encode()), "next_before": page.next_before}
    if page.has_cut_bodies:
        rendered["hint"] = CUT_BODIES_HINT
    return rendered


def _render_event_page(page: EventPage) -> dict[str, Any]:
    # Installed kits read `mine` of each event that they query.
    events = [{**_render_event(event), "mine": event.mine} for event in page.events]
    return {"events": events, "next_before": page.next_before}


def _render_digest(digest: Digest) -> dict[str, Any]:
    if digest.left_out is None:
        # A read from an earlier point: the events as they are stored, such as for a mirror of the ledger.
        events = [{**_render_event_fields(event), "mine": event.mine} for event in digest.events]
    else:
        events = [_render_event(event) for event in digest.events]
    rendered = {
        "since_event_id": digest.since_event_id,
        "events": events,
        "unacked_posts": digest.unacked_posts,
        "active_leases": digest.active_leases,
        "latest_claims": digest.latest_claims,
        "cursor": digest.cursor,
        "more": digest.more,
    }
    if digest.left_out is not None:
        counts = {"own": digest.left_out.own, "inbox": digest.left_out.inbox}
        if any(counts.values()):
            rendered["left_out"] = {name: count for name, count in counts.items() if count}
    return rendered


def _render_event(event: Event) -> dict[str, Any]:
    silent_values = _SILENT_PAYLOAD_VALUES.get(event.type)
    rendered = _render_event_fields(event)
    if silent_values is not None:
        rendered["payload"] = {
            name: value
            for name, value in event.payload.items()
            if name not in silent_values or value != silent_values[name]
        }
    return rendered


def _render_event_fields(event: Event) -> dict[str, Any]:
    rendered = {
        "id": event.id,
        "ts": format_time(event.ts),
        "actor": event.actor,
        "type": event.type,
        "payload": event.payload,
    }
    if event.session is not None:
        rendered["session"] = event.session
    return rendered


_RENDERERS: dict[type, Callable[[Any], dict[str, Any]]] = {
    PostPage: _render_post_page,
    EventPage: _render_event_page,
    Digest: _render_digest,
}


@cache
def _build_renderer(dataclass_type: type) -> Callable[[Any], dict[str, Any]]:
    """Build the render function of a dataclass from its type hints, once per class."""
    hints = typing.get_type_hints(dataclass_type)
    fields = [field.name for field in dataclasses.fields(dataclass_type) if field.name not in _INTERNAL_FIELDS]
    converters = [(name, convert) for name in fields if (convert := _find_converter(hints[name])) is not None]
    silent_values = {
        field.name: None
        for field in dataclasses.fields(dataclass_type)
        if field.default is None and field.name not in _INTERNAL_FIELDS
    }
    silent_values |= _SILENT_VALUES.get(dataclass_type, {})
    # Reads all fields in one call; of a single one it would return no tuple.
    read_fields = attrgetter(*fields) if len(fields) > 1 else lambda value: (getattr(value, fields[0]),)

    def render_dataclass(value: Any) -> dict[str, Any]:
        rendered = dict(zip(fields, read_fields(value), strict=True))
        for name, convert in converters:
            rendered[name] = convert(rendered[name])
        for name, silent_value in silent_values.items():
            if rendered[name] == silent_value:
                del rendered[name]
        return rendered

    return render_dataclass


def _find_converter(annotation: Any) -> Callable[[Any], Any] | None:
    if annotation is datetime:
        return format_time
    if dataclasses.is_dataclass(annotation):
        return _build_renderer(typing.cast(type, annotation))
    if get_origin(annotation) is list:
        convert_item = _find_converter(get_args(annotation)[0])
        return None if convert_item is None else lambda values: [convert_item(value) for value in values]
    alternatives = [alternative for alternative in get_args(annotation) if alternative is not type(None)]
    if len(alternatives) == 1 and type(None) in get_args(annotation):
        convert = _find_converter(alternatives[0])
        return None if convert is None else lambda value: None if value is None else convert(value)
    return None
