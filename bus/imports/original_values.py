"""Values of the original in the form that this schema takes: pure, total, and reporting what they change."""

import re
import unicodedata
from datetime import datetime
from typing import Any

from bus import limits
from bus.errors import InvalidArgument
from bus.imports.findings import Findings
from bus.rules import validation

# Fields of payloads that statements read as whole numbers; another value would fail there.
_INTEGER_FIELDS = ("number", "current", "pad", "fence", "contended", "ttl_seconds", "recipients", "post_id", "task_id")
# Fields with an index, whose entries are short.
_TEXT_FIELDS = ("sequence", "ref", "tag", "to_lane", "to_actor", "surface", "actor")

_NOT_IN_TEXTS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")


def clean_text(text: str) -> str:
    """Return a text of a file without control characters and halves of surrogate pairs, which texts may not contain."""
    return _NOT_IN_TEXTS.sub("\ufffd", text)


def clean_label(name: str) -> str:
    """Return the label of a participant: what follows the last '/', without what names may not contain."""
    text = unicodedata.normalize("NFC", name.rpartition("/")[2])
    text = "".join(char for char in text if validation.find_invisible_character(char) is None).strip()[:64].strip()
    try:
        return validation.label(text, "name")
    except InvalidArgument:
        return "unnamed"


def clip(value: str | None, max_length: int, findings: Findings, noun: str) -> str | None:
    """Return a text of at most `max_length` characters; None for an empty one."""
    if not value:
        return None
    if len(value) <= max_length:
        return value
    findings.add(f"{noun} longer than {max_length} characters; the end is cut", value)
    return value[: max_length - 1] + "…"


def qualify(actor_name: str | None, handle: str) -> str:
    """Return the name of an actor as `handle/label`, or as it is if it has that form already."""
    name = (actor_name or "unnamed").strip() or "unnamed"
    if "/" in name or name.lower() == handle:
        return name[: limits.MAX_QUALIFIED_NAME_LENGTH]
    return f"{handle}/{name}"[: limits.MAX_QUALIFIED_NAME_LENGTH]


def truncate_to_milliseconds(at: datetime) -> datetime:
    """Return a time in whole milliseconds, as the ledger stores times."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def convert_payload(payload: Any, original_id: int | None) -> dict[str, Any]:
    """Return the payload of an event, with its former id and without values that this ledger's statements cannot read.

    A field whose value has another type is kept as `original_NAME`, and so are ids of posts and tasks, which have other
    numbers here.
    """
    converted: dict[str, Any] = dict(payload) if isinstance(payload, dict) else {}
    if payload is not None and not isinstance(payload, dict):
        converted["original_payload"] = payload
    for name in _INTEGER_FIELDS:
        value = converted.get(name)
        is_integer = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= limits.MAX_INTEGER
        if name in converted and (not is_integer or name in ("post_id", "task_id")):
            converted[f"original_{name}"] = converted.pop(name)
    for name in _TEXT_FIELDS:
        value = converted.get(name)
        if value is not None and (not isinstance(value, str) or len(value) > limits.MAX_REF_LENGTH):
            converted[f"original_{name}"] = converted.pop(name)
            converted[name] = str(value)[: limits.MAX_REF_LENGTH]
    if original_id is not None:
        converted["original_id"] = original_id
    return converted
