"""Shutdown signal of a serving process."""

import asyncio
import signal


async def wait_for_shutdown_signal() -> None:
    """Return when the process receives SIGTERM, SIGINT (Ctrl-C) or SIGBREAK (Ctrl-Break, where it exists)."""
    received = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is None:
            continue
        try:
            loop.add_signal_handler(number, received.set)
        except NotImplementedError:
            # Event loops on Windows support no signal handlers.
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(received.set))
    await received.wait()
