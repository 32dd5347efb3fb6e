"""Conversion of the engine's dataclasses to JSON-serialisable values."""

import dataclasses
import typing
from collections.abc import Callable
from datetime import datetime
from functools import cache, lru_cache
from operator import attrgetter
from typing import Any, get_args, get_origin

# `from` is the name of the field on the wire and a keyword of Python.
_JSON_NAMES = {"sender": "from"}
UNREAD_FIELD = "unread"
# Fields that the engine returns for the gateway and not for the client.
_INTERNAL_FIELDS = frozenset({UNREAD_FIELD, "surfacing", "taken", "cursor_move"})


# Agents read the same posts, leases and events again and again.
@lru_cache(maxsize=8192)
def format_time(time: datetime) -> str:
    """Format a time for clients: ISO 8601, UTC, milliseconds, `Z`."""
    return f"{time.isoformat(timespec='milliseconds')[:-6]}Z"


def render(value: Any) -> Any:
    """Convert an engine result to JSON-serialisable values, without its internal fields.

    Absent optional fields are null, not missing. Only those whose default in the dataclass is None are left out; the
    original service does not have them.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _build_renderer(type(value))(value)
    return value


@cache
def _build_renderer(dataclass_type: type) -> Callable[[Any], dict[str, Any]]:
    """Build the render function of a dataclass from its type hints, once per class."""
    hints = typing.get_type_hints(dataclass_type)
    fields = [field.name for field in dataclasses.fields(dataclass_type) if field.name not in _INTERNAL_FIELDS]
    json_names = [_JSON_NAMES.get(name, name) for name in fields]
    converters = [
        (json_name, convert)
        for name, json_name in zip(fields, json_names, strict=True)
        if (convert := _find_converter(hints[name])) is not None
    ]
    omitted_names = [
        _JSON_NAMES.get(field.name, field.name)
        for field in dataclasses.fields(dataclass_type)
        if field.default is None and field.name not in _INTERNAL_FIELDS
    ]
    # Reads all fields in one call; of a single one it would return no tuple.
    read_fields = attrgetter(*fields) if len(fields) > 1 else lambda value: (getattr(value, fields[0]),)

    def render_dataclass(value: Any) -> dict[str, Any]:
        rendered = dict(zip(json_names, read_fields(value), strict=True))
        for json_name, convert in converters:
            rendered[json_name] = convert(rendered[json_name])
        for json_name in omitted_names:
            if rendered[json_name] is None:
                del rendered[json_name]
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
