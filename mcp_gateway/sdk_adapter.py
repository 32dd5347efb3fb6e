"""Adaptation between what clients send and accept, and what the SDK requires and answers.

The SDK accepts one spelling of each header and message, and refuses others that mainstream clients send: a single
media type in Accept, `params: null`, an unknown protocol revision at `initialize`. Requests are rewritten to that
spelling where they have one meaning, and refused with what to send where they have none. Answers are converted to a
form that the client accepts.
"""

import json
from dataclasses import dataclass
from typing import Any

from mcp_types import CLIENT_INFO_META_KEY, PROTOCOL_VERSION_META_KEY, UNSUPPORTED_PROTOCOL_VERSION
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, KNOWN_PROTOCOL_VERSIONS

from bus.rules.client_names import identify_client
from mcp_gateway import session_key
from mcp_gateway.content_negotiation import JSON, SSE, AcceptedForms, is_json_body, parse_accept
from mcp_gateway.direct_call import SSE_HEADERS, encode_sse_event, escape_line_separators
from mcp_gateway.http_responses import Headers, HttpResponse, Message, Send, json_response
from mcp_gateway.jsonrpc import JsonObject, MessageError, error_response, parse_message

_VERSION_HEADER = b"mcp-protocol-version"
_SERVED_VERSIONS = list(reversed(KNOWN_PROTOCOL_VERSIONS))
_ACCEPT_BOTH = JSON + b", " + SSE
_EVENT_DATA = b"data:"


@dataclass(frozen=True, slots=True)
class SdkRequest:
    """A request in the spelling of the SDK.

    Attributes:
        headers: its headers.
        body: its body.
        accepted: the forms of an answer that the client accepts.
        is_modern: whether its revision is 2026-07-28, whose answers are JSON unless they have several messages.
        session: the key of the caller's session in the body, if no header names one.
        client: the client, if it names itself in the body (`clientInfo`).
    """

    headers: Headers
    body: bytes
    accepted: AcceptedForms
    is_modern: bool
    session: str | None
    client: str | None


def adapt_request(headers: Headers, body: bytes) -> SdkRequest | HttpResponse:
    """Rewrite a request for the SDK, or return the response that refuses it."""
    content_types = _values(headers, b"content-type")
    if not is_json_body(content_types, body):
        shown = b", ".join(content_types).decode("ascii", "replace")[:80]
        advice = f"Send JSON in UTF-8 as Content-Type: application/json; {shown} was sent."
        return json_response(415, {"error": "unsupported media type", "message": advice})
    accepted = parse_accept(_values(headers, b"accept"))
    if not accepted.json and not accepted.sse:
        return _not_acceptable("Answers are application/json or text/event-stream; accept one of them.")
    try:
        message = parse_message(body)
    except MessageError as error:
        return json_response(400, error.response)
    if not accepted.sse and message.get("method") == "subscriptions/listen":
        return _not_acceptable("subscriptions/listen is answered as a stream; accept text/event-stream.")
    session = None
    if not _values(headers, session_key.HEADER) and isinstance(message.get("params"), dict):
        try:
            session = session_key.find_in_meta(message["params"].get("_meta"))
        except session_key.InvalidSessionKey:
            return session_key.invalid_key_response()
    if "params" in message and message["params"] in (None, []):
        del message["params"]
        body = json.dumps(message).encode()
    versions = _values(headers, _VERSION_HEADER)
    version = versions[0].decode("latin-1") if versions else None
    if len(versions) == 1 and (not version or _is_negotiation(version, message)):
        version = None
        headers = [(name, value) for name, value in headers if name != _VERSION_HEADER]
    if version is not None and version not in KNOWN_PROTOCOL_VERSIONS:
        rejection = _reject_version(version, message)
        if rejection is not None:
            return rejection
    headers = [(name, value) for name, value in headers if name not in (b"accept", b"content-type", b"content-length")]
    headers += [(b"accept", _ACCEPT_BOTH), (b"content-type", JSON), (b"content-length", str(len(body)).encode())]
    is_modern = version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS
    return SdkRequest(headers, body, accepted, is_modern, session, _find_client(message))


class AnswerConverter:
    """Passes the SDK's answer on in a form that the client accepts.

    Args:
        request: the request that is answered.
        send: receives the ASGI messages of the answer.
    """

    def __init__(self, request: SdkRequest, send: Send) -> None:
        self._request = request
        self._send = send
        self._start: Message | None = None
        self._body = bytearray()
        self._is_stream = False

    async def __call__(self, message: Message) -> None:
        """Accept one ASGI message of the SDK's answer."""
        if message["type"] == "http.response.start" and self._must_convert(message):
            self._start = message
        elif self._start is None:
            if message["type"] == "http.response.start":
                self._is_stream = _find_content_type(message).startswith(SSE)
            elif self._is_stream:
                # The SDK sends whole events.
                message = {**message, "body": escape_line_separators(message.get("body", b""))}
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_converted()

    def _must_convert(self, start: Message) -> bool:
        accepted, is_modern = self._request.accepted, self._request.is_modern
        content_type = _find_content_type(start)
        if content_type.startswith(SSE):
            # In 2026-07-28 a stream has several messages, which JSON would lose.
            return not accepted.sse if is_modern else accepted.answer_is_json(is_modern)
        return start["status"] == 200 and content_type.startswith(JSON) and not accepted.json

    async def _send_converted(self) -> None:
        start, self._start = self._start, None
        assert start is not None
        body = bytes(self._body)
        if self._request.accepted.json:
            headers, body = [(b"content-type", JSON)], _find_response(body)
            headers.append((b"content-length", str(len(body)).encode()))
        else:
            headers, body = SSE_HEADERS, encode_sse_event(body)
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def _find_response(stream: bytes) -> bytes:
    """Return the last message of a stream, which is the response; notifications precede it."""
    messages = [line[len(_EVENT_DATA) :].strip() for line in stream.splitlines() if line.startswith(_EVENT_DATA)]
    return next((message for message in reversed(messages) if message), b"")


def _find_content_type(start: Message) -> bytes:
    return next((value for name, value in start["headers"] if name.lower() == b"content-type"), b"")


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for header_name, value in headers if header_name == name]


def _is_negotiation(version: str, message: JsonObject) -> bool:
    """Whether the message is an `initialize` whose body negotiates the revision, whatever its header says."""
    if message.get("method") != "initialize" or version in HANDSHAKE_PROTOCOL_VERSIONS:
        return False
    # With the envelope of 2026-07-28 it is a method that this revision does not have.
    return version not in KNOWN_PROTOCOL_VERSIONS or _find_envelope_version(message) is None


def _find_envelope_version(message: JsonObject) -> Any:
    meta = (message.get("params") or {}).get("_meta")
    return meta.get(PROTOCOL_VERSION_META_KEY) if isinstance(meta, dict) else None


def _find_client(message: JsonObject) -> str | None:
    params = message.get("params")
    if not isinstance(params, dict):
        return None
    meta = params.get("_meta")
    client_info = params.get("clientInfo") if message.get("method") == "initialize" else None
    if client_info is None and isinstance(meta, dict):
        client_info = meta.get(CLIENT_INFO_META_KEY)
    name = client_info.get("name") if isinstance(client_info, dict) else None
    return identify_client(name) if isinstance(name, str) else None


def _reject_version(version: str, message: JsonObject) -> HttpResponse | None:
    """Refuse an unknown revision; None if the header and the body disagree, which the SDK reports."""
    envelope_version = _find_envelope_version(message)
    if envelope_version is not None and envelope_version != version:
        return None
    shown = version[:40].encode("ascii", "replace").decode()
    text = f"Unsupported protocol version: {shown} was sent; send one of {', '.join(_SERVED_VERSIONS)}."
    data = {"supported": _SERVED_VERSIONS, "requested": shown}
    return json_response(400, error_response(UNSUPPORTED_PROTOCOL_VERSION, text, message.get("id"), data))


def _not_acceptable(message: str) -> HttpResponse:
    return json_response(406, {"error": "not acceptable", "message": message})
