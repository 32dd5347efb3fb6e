"""The gateway on standard input and output, for clients that start their servers as child processes."""

import logging
import sys

import anyio
from mcp.server.stdio import stdio_server

from bus.config.settings import Settings
from bus.ctx import Ctx
from bus.operations import logs
from mcp_gateway.caller import Caller, bearer_token_fingerprint
from mcp_gateway.denials import RequestDenied
from mcp_gateway.mcp_handlers import RequestContext
from mcp_gateway.mcp_server import build_server
from mcp_gateway.service import Service
from mcp_gateway.session_key import InvalidSessionKey, find_in_meta


def run(settings: Settings, token: str | None) -> None:
    """Serve one client until it closes standard input.

    Args:
        settings: the settings of the gateway.
        token: the bearer token of the client; without one, tools are listed and calls are refused.
    """
    # Standard output belongs to the protocol.
    logs.configure_logging("WARNING", stream=sys.stderr)
    logging.getLogger("mcp").setLevel(logging.ERROR)
    anyio.run(_serve, settings, token)


def _build_caller(ctx: Ctx | None, context: RequestContext) -> Caller:
    try:
        session = find_in_meta(context.meta)
    except InvalidSessionKey:
        session = None
    return Caller(ctx if ctx is None or session is None else ctx.with_session(session))


async def _serve(settings: Settings, token: str | None) -> None:
    service = Service(settings)
    await service.start()
    try:
        fingerprint = None if token is None else bearer_token_fingerprint(f"Bearer {token}")
        try:
            ctx = None if fingerprint is None else await service.authenticator.find_caller(fingerprint)
        except RequestDenied:
            ctx = None
        server = build_server(service, lambda context: _build_caller(ctx, context))
        async with stdio_server() as (reader, writer):
            await server.run(reader, writer, server.create_initialization_options())
    finally:
        await service.stop()
