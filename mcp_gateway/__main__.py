"""The gateway process: `python -m mcp_gateway` serves the tools until SIGTERM."""

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine
from typing import Any

from bus.config.settings import SettingError, Settings
from bus.config.variables import reading
from bus.operations import logs, telemetry
from mcp_gateway import http_server, process_group


def main() -> None:
    """Read the settings, serve, and drain on SIGTERM."""
    configure_logging()
    try:
        with reading(os.environ) as env:
            settings = Settings.from_env(env)
            telemetry.start_telemetry("gateway", env)
    except SettingError as error:
        sys.exit(f"llm-bus gateway: {error}")
    listener = process_group.take_listener(os.environ)
    if listener is None and settings.process_count > 1:
        group = process_group.ProcessGroup(
            settings.process_count, settings.host, settings.port, settings.drain_seconds, os.environ
        )
        sys.exit(group.run())
    # Imported here, so that the parent of several processes stays small.
    from mcp_gateway.app import Gateway

    gateway = Gateway(settings)
    gateway.configure_heartbeat("gateway", env.masked_settings())
    metrics_socket = os.environ.get(process_group.METRICS_SOCKET_VARIABLE)
    if metrics_socket is not None:
        gateway.configure_group(metrics_socket)
    parent = process_group.ParentConnection(os.environ)
    listener = listener or process_group.open_listener(settings.host, settings.port)
    run_in_event_loop(
        http_server.serve(gateway, settings, gateway.begin_drain, gateway.service.drain, listener, parent)
    )


def configure_logging() -> None:
    """Set up logging, without the messages that the SDK and the server would repeat."""
    logs.configure_logging()
    http_server.configure_logging()
    # The SDK logs each refused request and each stateless session at INFO; the gateway's request log covers both.
    logging.getLogger("mcp").setLevel(logging.ERROR)


def run_in_event_loop(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end in the fastest event loop of the platform."""
    if sys.platform == "win32":
        asyncio.run(coroutine)
    else:
        import uvloop

        uvloop.run(coroutine)


if __name__ == "__main__":
    main()
