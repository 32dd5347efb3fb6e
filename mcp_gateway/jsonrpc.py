"""Validation of JSON-RPC messages; its errors quote no library, unlike those of the SDK's older transport."""

from typing import Any, TypeAlias

import msgspec

from mcp_gateway.argument_coercion import describe_sent

_PARSE_ERROR = -32700
_INVALID_REQUEST = -32600

JsonObject: TypeAlias = dict[str, Any]
# Larger and fractional ids differ between JSON parsers.
_ID_TYPES = "text or a whole number"


class MessageError(Exception):
    """A body is not one well-formed JSON-RPC message.

    Attributes:
        response: the JSON-RPC error response.
    """

    def __init__(self, code: int, message: str, id_: Any = None, data: Any = None) -> None:
        super().__init__(message)
        self.response = error_response(code, message, id_, data)


def parse_message(body: bytes) -> JsonObject:
    """Parse a body that is one JSON-RPC message.

    Raises:
        MessageError: it is not; the error says what was sent and what to send.
    """
    try:
        message = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MessageError(_PARSE_ERROR, "Parse error: the body is not valid JSON in UTF-8.") from None
    if isinstance(message, list):
        raise MessageError(
            _INVALID_REQUEST, "Batches are not supported; send one JSON-RPC message per request, not a list."
        )
    if not isinstance(message, dict):
        raise MessageError(_INVALID_REQUEST, f"{_message_form()}; {describe_sent(message)} was sent.")
    id_ = message.get("id")
    valid_id = id_ if isinstance(id_, int | str) and not isinstance(id_, bool) else None
    if message.get("jsonrpc") != "2.0":
        raise MessageError(
            _INVALID_REQUEST, f'{_message_form()}; jsonrpc must be "2.0", and {_sent(message, "jsonrpc")}.', valid_id
        )
    if "id" in message and valid_id is None:
        raise MessageError(_INVALID_REQUEST, f"id must be {_ID_TYPES}; {_sent(message, 'id')}.")
    is_response = "method" not in message and ("result" in message or "error" in message)
    if not is_response and not isinstance(message.get("method"), str):
        raise MessageError(
            _INVALID_REQUEST, f'method must be text, such as "tools/list"; {_sent(message, "method")}.', valid_id
        )
    params = message.get("params")
    if params is not None and params != [] and not isinstance(params, dict):
        raise MessageError(_INVALID_REQUEST, f"params must be an object; {_sent(message, 'params')}.", valid_id)
    return message


def error_response(code: int, message: str, id_: Any = None, data: Any = None) -> JsonObject:
    """Build a JSON-RPC error response."""
    error = {"code": code, "message": message}
    return {"jsonrpc": "2.0", "id": id_, "error": error if data is None else {**error, "data": data}}


def _message_form() -> str:
    return 'Send one JSON-RPC 2.0 message: {"jsonrpc": "2.0", "id": 1, "method": …}'


def _sent(message: JsonObject, name: str) -> str:
    return f"{describe_sent(message[name])} was sent" if name in message else "none was sent"
