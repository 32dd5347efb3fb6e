"""Conversion of the engine's dataclasses to JSON-serialisable values."""

import dataclasses
import typing
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any, get_args, get_origin

# `from` is the name of the field on the wire and a keyword of Python.
_JSON_NAMES = {"sender": "from"}
UNREAD_FIELD = "unread"
# Fields that the engine returns for the gateway and not for the client.
_INTERNAL_FIELDS = frozenset({UNREAD_FIELD, "surfacing"})


def format_time(time: datetime) -> str:
    """Format a time for clients: ISO 8601, UTC, milliseconds, `Z`."""
    return f"{time.isoformat(timespec='milliseconds')[:-6]}Z"


def render(value: Any) -> Any:
    """Convert an engine result to JSON-serialisable values, without its internal fields.

    Absent optional fields are null, not missing.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _build_renderer(type(value))(value)
    return value


@cache
def _build_renderer(dataclass_type: type) -> Callable[[Any], dict[str, Any]]:
    """Build the render function of a dataclass from its type hints, once per class."""
    hints = typing.get_type_hints(dataclass_type)
    steps = [
        (field.name, _JSON_NAMES.get(field.name, field.name), _find_converter(hints[field.name]))
        for field in dataclasses.fields(dataclass_type)
        if field.name not in _INTERNAL_FIELDS
    ]

    def render_dataclass(value: Any) -> dict[str, Any]:
        return {
            json_name: getattr(value, name) if convert is None else convert(getattr(value, name))
            for name, json_name, convert in steps
        }

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
