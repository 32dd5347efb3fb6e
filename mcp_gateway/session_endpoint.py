"""The endpoint of a caller's session, for the hooks of its client: /mcp/session.

POST reports that the session is alive, and returns what it has not been shown; DELETE ends it. It is no MCP tool, since
hooks call it and models do not.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from bus.coordination import sessions
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError, InvalidArgument
from mcp_gateway.denials import DENYING_ERRORS, RequestDenied
from mcp_gateway.http_responses import HttpResponse, Receive, ResponseSender, denial_response, json_response
from mcp_gateway.mcp_endpoint import McpEndpoint, Scope
from mcp_gateway.rate_limit import RateLimit
from mcp_gateway.render import render
from mcp_gateway.service import Service
from mcp_gateway.session_key import KEY_FORM

_T = TypeVar("_T")
_CHANGED_BY_END = frozenset({"ledger", "leases", "tasks", "inbox", "presence"})
_METHOD_NOT_ALLOWED = json_response(
    405,
    {"error": "method not allowed", "message": "POST to look, DELETE to end the session."},
    [(b"allow", b"POST, DELETE")],
)
_NO_SESSION = json_response(
    400,
    {"error": "session required", "message": f"Name the session in the header X-Bus-Session: {KEY_FORM}."},
)


class _LookRequest(msgspec.Struct, forbid_unknown_fields=True):
    wake: str | msgspec.UnsetType | None = msgspec.UNSET
    mail: bool = False
    announce: bool = True
    surface: str | None = None


_LOOK_ADVICE = (
    'Send an empty body or a JSON object with some of: wake ("hooks" or null), mail and announce (true or false),'
    " surface (a path or glob)."
)


class SessionEndpoint:
    """Answers the requests to /mcp/session.

    Args:
        mcp_endpoint: reads heads and bodies.
        service: runs the engine.
        rate_limit: admits calls.
    """

    def __init__(self, mcp_endpoint: McpEndpoint, service: Service, rate_limit: RateLimit) -> None:
        self._mcp_endpoint = mcp_endpoint
        self._service = service
        self._rate_limit = rate_limit

    async def handle(self, scope: Scope, receive: Receive, response: ResponseSender) -> None:
        """Answer one request."""
        head = self._mcp_endpoint.heads.read(scope["method"], scope["headers"])
        if head.cors_headers is not None:
            response.add_headers(head.cors_headers)
        bodies = self._mcp_endpoint.bodies
        if head.rejection is not None or head.token_fingerprint is None:
            rejection = head.rejection or denial_response(RequestDenied(401, "unauthenticated"))
            if not await bodies.discard(scope, receive):
                rejection = replace(rejection, headers=[*rejection.headers, (b"connection", b"close")])
            await response.send_response(rejection)
            return
        body = await bodies.read(scope, receive)
        if body is None:
            error = {"error": "too large", "message": _LOOK_ADVICE}
            await response.send_response(json_response(413, error, [(b"connection", b"close")]))
            return
        try:
            ctx = await self._service.authenticator.find_caller(head.token_fingerprint)
            if ctx is None:
                raise RequestDenied(401, "unauthenticated")
            if not self._rate_limit.allow(ctx):
                raise RequestDenied(429, "rate_limited")
            await response.send_response(await self._answer(scope["method"], ctx, head.session, body))
        except RequestDenied as denied:
            await response.send_response(denial_response(denied))

    async def _answer(self, method: str, caller: Ctx, session: str | None, body: bytes) -> HttpResponse:
        """Answer a request of a known token.

        Raises:
            RequestDenied: the caller may not call, or the call cannot run at present.
        """
        if method not in ("POST", "DELETE") or session is None:
            await self._service.authenticator.authorize(caller)
            return _METHOD_NOT_ALLOWED if method not in ("POST", "DELETE") else _NO_SESSION
        ctx = caller.with_session(session)
        try:
            if method == "DELETE":
                ended = await self._run(ctx, lambda conn: sessions.end(conn, ctx))
                self._service.change_notifier.publish(ctx.project_id, _CHANGED_BY_END)
                return json_response(200, render(ended))
            request = _parse(body)
            look = await self._run(ctx, lambda conn: _look(conn, ctx, request))
        except BusError as error:
            await self._service.authenticator.authorize(caller)
            return json_response(400, {"error": error.code, "message": error.message})
        self._service.activity.record_activity(ctx)
        content = {**render(look), "unread": look.unread}
        for post in content.get("posts", ()):
            # Named as by read_posts; `from` is a keyword of Python.
            post["from"] = post.pop("sender")
        return json_response(200, content)

    async def _run(self, ctx: Ctx, work: Callable[[Connection], _T]) -> _T:
        def run() -> _T:
            with self._service.engine.db.transaction() as conn:
                return work(conn)

        try:
            return await self._service.engine.run_in_thread(run, ctx)
        except DENYING_ERRORS as error:
            raise RequestDenied.from_error(error) from None


def _parse(body: bytes) -> _LookRequest:
    try:
        request = msgspec.json.decode(body or b"{}", type=_LookRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidArgument(_LOOK_ADVICE) from None
    if request.wake not in (msgspec.UNSET, None, "hooks"):
        raise InvalidArgument(_LOOK_ADVICE)
    return request


def _look(conn: Connection, ctx: Ctx, request: _LookRequest) -> Any:
    return sessions.look(
        conn,
        ctx,
        hooks=None if request.wake is msgspec.UNSET else request.wake == "hooks",
        mail=request.mail,
        announce=request.announce,
        surface=request.surface,
    )
