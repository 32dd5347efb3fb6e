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
from mcp_gateway import http_server
from mcp_gateway.app import Gateway


def main() -> None:
    """Read the settings, serve, and drain on SIGTERM."""
    configure_logging()
    try:
        with reading(os.environ) as env:
            settings = Settings.from_env(env)
            telemetry.start_telemetry("gateway", env)
    except SettingError as error:
        sys.exit(f"llm-bus gateway: {error}")
    gateway = Gateway(settings)
    gateway.configure_heartbeat("gateway", env.masked_settings())
    run_in_event_loop(http_server.serve(gateway, settings, gateway.service.drain))


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
