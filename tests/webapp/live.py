"""The web as it runs: behind hypercorn, on a port of its own."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hypercorn.asyncio import serve
from hypercorn.config import Config

from bus.settings import Settings
from tests.servers import free_port
from webapp.app import create_app
from webapp.asgi import Web
from webapp.options import WebOptions

_START_SECONDS = 30


@contextmanager
def live(database_url: str, **env: str) -> Iterator[str]:
    """Serve the web; yields its address. More settings come as environment variables."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    whole = {"DATABASE_URL": database_url, "PUBLIC_URL": url, **env}
    settings = Settings.from_env(whole)
    app = create_app(settings, WebOptions.from_env(whole))
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = None
    started, told, loops = threading.Event(), asyncio.Event(), []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        task = asyncio.ensure_future(serve(Web(app, settings), config, mode="asgi", shutdown_trigger=told.wait))
        while not _listens(port) and not task.done():
            await asyncio.sleep(0.01)
        started.set()
        await task

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="live web")
    thread.start()
    try:
        assert started.wait(_START_SECONDS)
        yield url
    finally:
        loops[0].call_soon_threadsafe(told.set)
        thread.join()
        app.extensions["bus.db"].close()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
