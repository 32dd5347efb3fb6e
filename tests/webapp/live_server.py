"""The web application served by hypercorn on a free port."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import hypercorn.asyncio
from hypercorn.config import Config

from tests.concurrency import wait_until_async
from tests.servers import free_port
from tests.webapp.web_client import WebApp
from webapp import asgi

_START_SECONDS = 30


@contextmanager
def running_live_server(
    database_url: str, prepare: Callable[[WebApp], None] | None = None, /, **env: str
) -> Iterator[str]:
    """Serve the web application; yields its address.

    Args:
        prepare: modifies the application before it is served.
        env: additional settings, as environment variables.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    web = WebApp(database_url, **{"PUBLIC_URL": url, **env})
    if prepare is not None:
        prepare(web)
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = None
    started, shutdown = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        app = asgi.WebApplication(web.app, web.settings)
        serving = hypercorn.asyncio.serve(app, config, mode="asgi", shutdown_trigger=shutdown.wait)  # type: ignore[arg-type]
        task = asyncio.ensure_future(serving)
        await wait_until_async(lambda: is_listening(port) or task.done())
        started.set()
        await task

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="live web")
    thread.start()
    try:
        assert started.wait(_START_SECONDS)
        yield url
    finally:
        loops[0].call_soon_threadsafe(shutdown.set)
        thread.join()
        web.close()


def is_listening(port: int) -> bool:
    """Whether a server listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
