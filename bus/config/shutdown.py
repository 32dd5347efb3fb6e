"""Shutdown signal of a serving process, and the time between it and the stop."""

import asyncio
import contextlib
import signal
from collections.abc import Callable


async def drain_at_signal(begin_drain: Callable[[], None], seconds: int) -> None:
    """Return when the process is to stop: so many seconds after the shutdown signal, or at another one.

    Args:
        begin_drain: called at the signal, unless `seconds` is 0. From then on the health checks fail while calls are
            still answered, so that a balancer sends the next ones to other processes.
    """
    await wait_for_shutdown_signal()
    if seconds:
        begin_drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(wait_for_shutdown_signal(), seconds)


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
