"""How a process that serves hears that it has to stop."""

import asyncio
import signal


async def wait_for_shutdown_signal() -> None:
    """Return when the process is told to stop: SIGTERM, Ctrl-C, or Ctrl-Break where that exists."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is None:
            continue
        try:
            loop.add_signal_handler(number, told.set)
        except NotImplementedError:
            # Windows has no signals that a loop could wait for.
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(told.set))
    await told.wait()
