"""Lenient reading of arguments: numbers, booleans and lists that a client or a model sent as text.

It runs only after strict validation has failed, so a call with the right types pays nothing for it. A value is
converted only if it has exactly one meaning; every other value stays as it is, and the error describes it.
"""

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from bus import limits

_INTEGER_TEXT = re.compile(r"([+-]?[0-9]{1,17})(?:\.0{1,6})?")
_BOOLEANS_BY_TEXT = {"true": True, "false": False}
# As programs write the absence of a value. Text arguments may have these values.
_NULL_TEXTS = frozenset({"null", "none"})
_MAX_SHOWN_CHARACTERS = 40
# More digits than any valid number has.
_MAX_SHOWN_DIGITS = 20


def coerce_value(value: Any, schema: Mapping[str, Any]) -> Any:
    """Convert a value to the type of its JSON Schema if that is unambiguous, else return it unchanged.

    Numbers: 600.0, "600", " 600 ", "600.0". Booleans: "true", "False". Lists: "[1,2]", "1, 2", ["1", 2.0], and one
    entry without a list. "null" is null. Text is never converted to text of another form.
    """
    kind = schema["type"]
    if kind == "string":
        return value
    if isinstance(value, str):
        value = _unquote(value)
        if value.lower() in _NULL_TEXTS:
            return None
    if kind == "integer":
        return _coerce_integer(value)
    if kind == "boolean":
        return _BOOLEANS_BY_TEXT.get(value.lower(), value) if isinstance(value, str) else value
    return _coerce_list(value, schema["items"])


def parse_object_text(value: Any) -> Any:
    """Return the JSON object in a text, and {} where nothing was sent; every other value unchanged.

    Clients send arguments as JSON text because models produce them as text, and some languages encode an empty object
    as an empty list.
    """
    parsed: Any = value
    # Encoded once by the model and once more by the client.
    for _ in range(2):
        if isinstance(parsed, str) and parsed.strip():
            try:
                parsed = msgspec.json.decode(parsed)
            except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
                return value
    if parsed is None or parsed == [] or (isinstance(parsed, str) and not parsed.strip()):
        return {}
    return parsed if isinstance(parsed, dict) else value


def describe_sent(value: Any) -> str:
    """Describe a value for the sentence `… was sent`, shortened and without characters that JSON cannot carry."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        digits = _format_number(value)
        return f"the number {digits}" if len(digits) <= _MAX_SHOWN_DIGITS else f"a number of {len(digits)} digits"
    if isinstance(value, str):
        if len(value) > _MAX_SHOWN_CHARACTERS:
            return f"text of {len(value)} characters"
        return f"the text {_quote(value)}" if value else "an empty text"
    noun = "list" if isinstance(value, list) else "object"
    shown = _shorten_json(value)
    return f"the {noun} {shown}" if shown else f"a long {noun}"


def describe_right_form(name: str, value: Any, schema: Mapping[str, Any]) -> str:
    """Return a sentence that shows the right form, where the type of the value was wrong; else an empty text."""
    kind = schema["type"]
    if kind == "string":
        return "" if isinstance(value, str) else _show_text_form(name, value, schema)
    without_quotes = ", without quotes" if isinstance(value, str) else ""
    return f'Send "{name}": {_example(schema)}{without_quotes}.'


def _show_text_form(name: str, value: Any, schema: Mapping[str, Any]) -> str:
    if isinstance(value, list):
        texts = [entry for entry in value if isinstance(entry, str)]
        if name == "surface" and len(texts) == len(value) > 1:
            return "Call once for each path, or send a glob such as src/**."
        return f'Send one text: "{name}": {_quote(texts[0][:_MAX_SHOWN_CHARACTERS] if texts else "…")}.'
    if isinstance(value, int | float) and not isinstance(value, bool) and "enum" not in schema:
        digits = _format_number(value)
        if len(digits) <= _MAX_SHOWN_DIGITS:
            return f'Send "{name}": "{digits}".'
    return f'Send text in quotes: "{name}": {_quote(schema["enum"][0] if "enum" in schema else "…")}.'


def _example(schema: Mapping[str, Any]) -> str:
    if schema["type"] == "boolean":
        return "true or false"
    if schema["type"] == "array":
        return "[1, 2]"
    return str(schema.get("default", max(1, schema.get("minimum", 1))))


def _unquote(text: str) -> str:
    """Remove white space and, once, the quotes of a JSON string."""
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"' and "\\" not in text:
        return text[1:-1].strip()
    return text


def _coerce_integer(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) <= limits.MAX_INTEGER:
        return int(value)
    if isinstance(value, str) and (match := _INTEGER_TEXT.fullmatch(value)):
        return int(match[1])
    return value


def _coerce_list(value: Any, item_schema: Mapping[str, Any]) -> Any:
    entries: Any = value
    if isinstance(value, str):
        try:
            entries = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            entries = value.split(",")
    if isinstance(entries, int | float) and not isinstance(entries, bool):
        entries = [entries]
    if not isinstance(entries, list):
        return value
    return [coerce_value(entry, item_schema) for entry in entries]


def _format_number(value: float) -> str:
    try:
        return str(value)
    except ValueError:
        # Python refuses to format larger integers.
        return "9" * sys.get_int_max_str_digits()


def _shorten_json(value: Any) -> str:
    """Return a list or an object as JSON; an empty text if that is long."""
    try:
        text = json.dumps(value, ensure_ascii=False) if len(value) <= _MAX_SHOWN_CHARACTERS else ""
    except (ValueError, RecursionError):
        return ""
    return text.encode("utf-8", "replace").decode() if len(text) <= _MAX_SHOWN_CHARACTERS else ""


def _quote(text: str) -> str:
    return json.dumps(text.encode("utf-8", "replace").decode(), ensure_ascii=False)
