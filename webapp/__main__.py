"""The web process: `python -m webapp` serves the pages behind hypercorn until SIGTERM."""

import asyncio
import logging
import sys

from hypercorn.asyncio import serve
from hypercorn.config import Config

from bus import logs
from bus.settings import SettingError, Settings
from webapp.app import create_app
from webapp.asgi import Web
from webapp.options import WebOptions


def main() -> None:
    """Read the settings and serve."""
    logs.configure()
    try:
        settings = Settings.from_env(port=8787)
        options = WebOptions.from_env()
    except SettingError as error:
        sys.exit(f"llm-bus web: {error}")
    config = Config()
    config.bind = [f"{settings.host}:{settings.port}"]
    config.include_server_header = False
    config.errorlog = logging.getLogger("hypercorn.error")
    config.read_timeout = 60
    web = Web(create_app(settings, options), settings)
    asyncio.run(serve(web, config, mode="asgi"))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
