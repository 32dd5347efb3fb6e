"""One listener for web and gateway, for platforms that route one port to one process."""

import logging
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import hypercorn.asyncio
from hypercorn.config import Config

from bus.config.listening import bind_errors_end_the_start
from bus.config.settings import Settings
from bus.config.shutdown import drain_at_signal
from bus.config.variables import reading
from bus.operations import telemetry
from bus.operations.metrics import MetricsEndpoint
from mcp_gateway.__main__ import configure_logging, run_in_event_loop
from mcp_gateway.app import Gateway
from webapp.app import create_app
from webapp.asgi import WebApplication
from webapp.settings import WebOptions

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_MCP_PATHS = ("/mcp", "/mcp/", "/mcp/session")


class CombinedApp:
    """An ASGI application that routes /mcp and the lifespan to the gateway, and the rest to the web."""

    def __init__(self, gateway: Gateway, web: WebApplication) -> None:
        self._gateway = gateway
        self._web = web

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one connection on to the gateway or the web."""
        if scope["type"] == "http" and scope["path"] not in _MCP_PATHS:
            await self._web(scope, receive, send)
        else:
            await self._gateway(scope, receive, send)


def run() -> None:
    """Serve both until SIGTERM; calls in progress are answered first.

    Raises:
        SettingError: a setting is missing or malformed.
    """
    configure_logging()
    with reading(os.environ) as env:
        settings, options = Settings.from_env(env, port=8787), WebOptions.from_env(env)
        telemetry.start_telemetry("serve", env)
    metrics = MetricsEndpoint("serve", settings.metrics_token)
    app = create_app(settings, options, metrics)
    gateway = Gateway(settings, metrics)
    gateway.configure_heartbeat("serve", env.masked_settings(), app.extensions["bus.requests"])
    web = WebApplication(app, settings)
    with bind_errors_end_the_start("serve", settings.host, settings.port):
        run_in_event_loop(_serve(gateway, web, settings))


async def _serve(gateway: Gateway, web: WebApplication, settings: Settings) -> None:
    def begin_drain() -> None:
        gateway.begin_drain()
        web.begin_drain()

    async def drain() -> None:
        await drain_at_signal(begin_drain, settings.drain_seconds)
        gateway.service.drain()
        web.drain()

    await hypercorn.asyncio.serve(
        CombinedApp(gateway, web),  # type: ignore[arg-type]
        _build_hypercorn_config(settings),
        mode="asgi",
        shutdown_trigger=drain,
    )


def _build_hypercorn_config(settings: Settings) -> Config:
    """Build the configuration of hypercorn; connections are kept alive, since agents call in bursts."""
    config = Config()
    config.bind = [f"{settings.host}:{settings.port}"]
    config.keep_alive_timeout = 120
    config.keep_alive_max_requests = 1_000_000
    config.graceful_timeout = 10
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.backlog = 1024
    return config
