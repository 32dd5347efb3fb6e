"""The key of a caller's session: from a header, or from the `_meta` that a client sends with each call."""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from mcp_gateway.http_responses import Headers, HttpResponse, json_response

HEADER: Final = b"x-bus-session"
META_KEY: Final = "llm-bus/session"
# Codex names its session here, as an object or as the JSON text of one.
CODEX_META_KEY: Final = "x-codex-turn-metadata"
# An argument of any tool. Hooks of clients can rewrite arguments, where all sub-agents share one connection.
ARGUMENT: Final = "_session"
KEY_FORM: Final = "1 to 128 printable ASCII characters without spaces"
_KEY = re.compile(r"[\x21-\x7e]{1,128}")


class InvalidSessionKey(Exception):
    """A session key that is not 1 to 128 printable ASCII characters without spaces."""


def find_in_headers(headers: Headers) -> str | None:
    """Return the session key in a request's headers, whose names are in lower case; None if there is none.

    Raises:
        InvalidSessionKey: it is malformed, or there are several.
    """
    # Some clients send an unset variable as an empty header.
    values = [value for name, value in headers if name == HEADER and value]
    if not values:
        return None
    if len(values) > 1:
        raise InvalidSessionKey
    return _validate(values[0].decode("latin-1"))


def find_in_meta(meta: Any) -> str | None:
    """Return the session key in the `_meta` of a request's params; None if there is none.

    Raises:
        InvalidSessionKey: it is malformed.
    """
    if not isinstance(meta, Mapping):
        return None
    codex_meta = meta.get(CODEX_META_KEY)
    if isinstance(codex_meta, str):
        try:
            codex_meta = msgspec.json.decode(codex_meta)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            codex_meta = None
    if isinstance(codex_meta, Mapping) and codex_meta.get("session_id") is not None:
        session_id, thread_id = codex_meta["session_id"], codex_meta.get("thread_id")
        is_sub_agent = isinstance(session_id, str) and isinstance(thread_id, str) and thread_id != session_id
        return _validate(f"{session_id}/{thread_id}" if is_sub_agent else session_id)
    key = meta.get(META_KEY)
    return None if key is None else _validate(key)


def take_from_arguments(arguments: Any) -> tuple[Any, str | None]:
    """Return a tool's arguments without the session key, and the key; None if there is none.

    Raises:
        InvalidSessionKey: it is malformed.
    """
    if not isinstance(arguments, dict) or ARGUMENT not in arguments:
        return arguments, None
    others = {name: value for name, value in arguments.items() if name != ARGUMENT}
    return others, _validate(arguments[ARGUMENT])


def invalid_key_response() -> HttpResponse:
    """Build the response to a request with a malformed session key."""
    advice = f"Send X-Bus-Session, or {META_KEY} in _meta, once, as {KEY_FORM}; or leave it out."
    return json_response(400, {"error": "invalid session", "message": advice})


def _validate(key: Any) -> str:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise InvalidSessionKey
    return key
