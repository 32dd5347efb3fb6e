"""From the engine's dataclasses to what goes over the wire."""

import dataclasses
import typing
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any, get_args, get_origin

# `from` is a keyword of Python and the field's name on the wire.
_WIRE_NAMES = {"sender": "from"}
UNREAD = "unread"
# What the engine tells its door and not the client.
_INNER = frozenset({UNREAD, "surfacing"})


def iso(at: datetime) -> str:
    """A time as clients get it: ISO 8601, UTC, milliseconds, `Z`."""
    return f"{at.isoformat(timespec='milliseconds')[:-6]}Z"


def render(value: Any) -> Any:
    """Turn an engine result into JSON-able values; a dataclass's own `unread` is left to the caller.

    Absent optional fields are null, not missing.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plan(type(value))(value)
    return value


@cache
def _plan(kind: type) -> Callable[[Any], dict[str, Any]]:
    """How to render a dataclass, worked out once from its type hints."""
    hints = typing.get_type_hints(kind)
    steps = [
        (field.name, _WIRE_NAMES.get(field.name, field.name), _converter(hints[field.name]))
        for field in dataclasses.fields(kind)
        if field.name not in _INNER
    ]

    def render_one(value: Any) -> dict[str, Any]:
        return {
            wire: getattr(value, name) if convert is None else convert(getattr(value, name))
            for name, wire, convert in steps
        }

    return render_one


def _converter(hint: Any) -> Callable[[Any], Any] | None:
    if hint is datetime:
        return iso
    if dataclasses.is_dataclass(hint):
        return _plan(typing.cast(type, hint))
    if get_origin(hint) is list:
        each = _converter(get_args(hint)[0])
        return None if each is None else lambda values: [each(one) for one in values]
    optional = [one for one in get_args(hint) if one is not type(None)]
    if len(optional) == 1 and type(None) in get_args(hint):
        inner = _converter(optional[0])
        return None if inner is None else lambda one: None if one is None else inner(one)
    return None
