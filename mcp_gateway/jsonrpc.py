"""Validation of JSON-RPC messages; its errors quote no library, unlike those of the SDK's older transport."""

from typing import Any

import msgspec

_PARSE_ERROR = -32700
_INVALID_REQUEST = -32600


def find_message_error(body: bytes) -> dict[str, Any] | None:
    """Return the JSON-RPC error for a body that is not one well-formed message, or None."""
    try:
        message = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _error_response(_PARSE_ERROR, "Parse error: the body is not valid JSON in UTF-8.")
    if isinstance(message, list):
        return _error_response(_INVALID_REQUEST, "Batches are not supported; send one JSON-RPC message per request.")
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        return _error_response(
            _INVALID_REQUEST, 'Send one JSON-RPC 2.0 message: {"jsonrpc": "2.0", "id": 1, "method": …}.'
        )
    if "method" in message and not isinstance(message["method"], str):
        return _error_response(_INVALID_REQUEST, "method must be text.")
    id_ = message.get("id", "")
    if isinstance(id_, bool) or not isinstance(id_, int | str):
        return _error_response(_INVALID_REQUEST, "id must be text or a whole number.")
    if not isinstance(message.get("params", {}), dict):
        return _error_response(_INVALID_REQUEST, "params must be an object.")
    return None


def _error_response(code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}
