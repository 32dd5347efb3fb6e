"""Calls of tools on one connection, as the gateway makes them: by token, with validation, rendering and refusals."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from bus.client_setup import Endpoints
from bus.coordination import long_poll
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError, NotAuthenticated, OwnerSuspended
from bus.rules.token_format import fingerprint
from bus.tenancy import authentication, tokens
from mcp_gateway.client_setup import RESULT_RENDERERS
from mcp_gateway.error_hints import message_with_hint
from mcp_gateway.render import UNREAD_FIELD, render
from mcp_gateway.tools import all_tools

ENDPOINTS = Endpoints("https://bus.example.org", "https://bus.example.org/mcp")
TOOLS = all_tools()
_TIME_FIELDS = frozenset(
    {"acked_at", "at", "created_at", "expires_at", "expires_in_seconds", "last_seen", "registered_at", "ts"}
)


@dataclass(frozen=True)
class Answer:
    """An answer: the content and its text, or the code of a refusal and its message."""

    code: str | None
    content: dict[str, Any]
    text: str


def run(conn: Connection, call: Callable[[], Any]) -> Answer:
    """Run a call in a savepoint, which a refusal rolls back as the transaction of the call is."""
    try:
        with conn.raw.transaction():
            content = call()
    except BusError as error:
        return Answer(error.code, error.data, f"{message_with_hint(error)} {error.data}")
    except NotAuthenticated:
        return Answer("not_authenticated", {}, "")
    except OwnerSuspended:
        return Answer("suspended", {}, "")
    return Answer(None, content if isinstance(content, dict) else {"result": content}, repr(content))


def call_tool(conn: Connection, token: str, name: str, arguments: dict[str, Any]) -> Answer:
    """Call a tool with a token. `wait_for` is polled once."""
    ctx = tokens.find_caller(conn, fingerprint(token))
    return Answer("not_authenticated", {}, "") if ctx is None else call_as(conn, ctx, name, arguments)


def call_as(conn: Connection, ctx: Ctx, name: str, arguments: dict[str, Any]) -> Answer:
    """Call a tool as a caller, also as an owner without a token."""
    answer = run(conn, lambda: _call(conn, ctx, name, arguments))
    if answer.code in (None, "not_authenticated", "suspended"):
        return answer
    # Arguments may have been refused before a statement authenticated the caller.
    denied = run(conn, lambda: authentication.authenticate(conn, ctx))
    return answer if denied.code is None else denied


def _call(conn: Connection, ctx: Ctx, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    tool = TOOLS[name]
    result = tool.function(conn, ctx, **tool.decode(arguments))
    if isinstance(result, long_poll.WaitRequest):
        polled = long_poll.poll(conn, result)
        long_poll.end_waits(conn, [result])
        if polled is None:
            return {"timed_out": True}
        kind, page = polled
        return {"kind": kind, **_decode(render(page))} | _unread(page.unread if kind != "inbox" else 0)
    unread = 0
    if tool.reports_unread:
        reported = result.get(UNREAD_FIELD) if isinstance(result, dict) else getattr(result, UNREAD_FIELD, None)
        unread = authentication.count_unread(conn, ctx) if reported is None else reported
    render_setup = RESULT_RENDERERS.get(type(result))
    return _decode(render(result) if render_setup is None else render_setup(ENDPOINTS, result)) | _unread(unread)


def _unread(count: int) -> dict[str, int]:
    return {"_unread_posts": count} if count else {}


def _decode(content: dict[str, Any]) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(content))
    return decoded


def without_times(value: Any) -> Any:
    """Return a content without its times, and with `acked_by` in a fixed order."""
    if isinstance(value, dict):
        return {
            name: sorted(each) if name == "acked_by" else without_times(each)
            for name, each in value.items()
            if name not in _TIME_FIELDS
        }
    return [without_times(each) for each in value] if isinstance(value, list) else value


def without_numbers(text: str) -> str:
    """Return a text with every number replaced, to compare refusals of two ids."""
    return re.sub(r"\d+", "N", text)
