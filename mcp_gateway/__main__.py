"""The gateway process: `python -m mcp_gateway` serves the tools behind hypercorn until SIGTERM."""

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine
from typing import Any

from hypercorn.config import Config

from bus.config.redaction import RecordingEnvironment
from bus.config.settings import SettingError, Settings
from bus.operations import logs, telemetry
from mcp_gateway.app import Gateway
from mcp_gateway.raw_http_server import serve


def main() -> None:
    """Read the settings, serve, and drain on SIGTERM."""
    configure_logging()
    try:
        env = RecordingEnvironment(os.environ)
        settings = Settings.from_env(env)
        telemetry.start_telemetry("gateway", env)
    except SettingError as error:
        sys.exit(f"llm-bus gateway: {error}")
    gateway = Gateway(settings)
    gateway.configure_heartbeat("gateway", env.masked_settings())
    run_in_event_loop(serve(gateway, build_hypercorn_config(settings)))


def configure_logging() -> None:
    """Set up logging, without the messages that the SDK would repeat."""
    logs.configure_logging()
    # The SDK logs each refused request and each stateless session at INFO; the gateway's request log covers both.
    logging.getLogger("mcp").setLevel(logging.ERROR)


def run_in_event_loop(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end in the fastest event loop of the platform."""
    if sys.platform == "win32":
        asyncio.run(coroutine)
    else:
        import uvloop

        uvloop.run(coroutine)


def build_hypercorn_config(settings: Settings) -> Config:
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


if __name__ == "__main__":
    main()
