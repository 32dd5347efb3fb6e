"""The web process: `python -m webapp` serves the pages with hypercorn until SIGTERM."""

import asyncio
import logging
import os
import sys

from hypercorn.asyncio import serve
from hypercorn.config import Config

from bus.config.listening import bind_errors_end_the_start
from bus.config.settings import SettingError, Settings
from bus.config.shutdown import drain_at_signal
from bus.config.variables import reading
from bus.operations import logs, telemetry
from bus.operations.heartbeat import HeartbeatReporter, request_counts
from webapp.app import create_app
from webapp.asgi import WebApplication
from webapp.settings import WebOptions


def main() -> None:
    """Read the settings and serve."""
    logs.configure_logging()
    try:
        with reading(os.environ) as env:
            settings = Settings.from_env(env, port=8787)
            options = WebOptions.from_env(env)
            telemetry.start_telemetry("web", env)
    except SettingError as error:
        sys.exit(f"llm-bus web: {error}")
    config = Config()
    config.bind = [f"{settings.host}:{settings.port}"]
    config.include_server_header = False
    config.errorlog = logging.getLogger("hypercorn.error")
    config.read_timeout = 60
    app = create_app(settings, options)
    requests = app.extensions["bus.requests"]
    reporter = HeartbeatReporter(
        app.extensions["bus.db"], "web", env.masked_settings(), counters=lambda: request_counts(requests)
    )
    reporter.start()
    try:
        with bind_errors_end_the_start("web", settings.host, settings.port):
            asyncio.run(_serve(WebApplication(app, settings), config, settings.drain_seconds))
    finally:
        reporter.stop()


async def _serve(web: WebApplication, config: Config, drain_seconds: int) -> None:
    async def drain_on_shutdown() -> None:
        await drain_at_signal(web.begin_drain, drain_seconds)
        web.drain()

    await serve(web, config, mode="asgi", shutdown_trigger=drain_on_shutdown)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
