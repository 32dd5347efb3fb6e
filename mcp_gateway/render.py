"""From the engine's dataclasses to what goes over the wire."""

import dataclasses
import typing
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any, get_args, get_origin

# `from` is a keyword of Python and the field's name on the wire.
_JSON_NAMES = {"sender": "from"}
UNREAD_FIELD = "unread"
# What the engine tells its door and not the client.
_INTERNAL_FIELDS = frozenset({UNREAD_FIELD, "surfacing"})


def format_time(time: datetime) -> str:
    """A time as clients get it: ISO 8601, UTC, milliseconds, `Z`."""
    return f"{time.isoformat(timespec='milliseconds')[:-6]}Z"


def render(value: Any) -> Any:
    """Turn an engine result into JSON-able values; a dataclass's own `unread` is left to the caller.

    Absent optional fields are null, not missing.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _build_renderer(type(value))(value)
    return value


@cache
def _build_renderer(dataclass_type: type) -> Callable[[Any], dict[str, Any]]:
    """How to render a dataclass, worked out once from its type hints."""
    hints = typing.get_type_hints(dataclass_type)
    steps = [
        (field.name, _JSON_NAMES.get(field.name, field.name), _find_converter(hints[field.name]))
        for field in dataclasses.fields(dataclass_type)
        if field.name not in _INTERNAL_FIELDS
    ]

    def render_one(value: Any) -> dict[str, Any]:
        return {
            wire: getattr(value, name) if convert is None else convert(getattr(value, name))
            for name, wire, convert in steps
        }

    return render_one


def _find_converter(annotation: Any) -> Callable[[Any], Any] | None:
    if annotation is datetime:
        return format_time
    if dataclasses.is_dataclass(annotation):
        return _build_renderer(typing.cast(type, annotation))
    if get_origin(annotation) is list:
        each = _find_converter(get_args(annotation)[0])
        return None if each is None else lambda values: [each(one) for one in values]
    optional = [one for one in get_args(annotation) if one is not type(None)]
    if len(optional) == 1 and type(None) in get_args(annotation):
        inner = _find_converter(optional[0])
        return None if inner is None else lambda one: None if one is None else inner(one)
    return None
