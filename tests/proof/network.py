"""A TCP proxy that delays, cuts and half-closes the connections between clients and a gateway."""

import asyncio
import random
import threading
from contextlib import suppress

from bench.requests import Address


class FaultyProxy:
    """A proxy on the loopback interface, in a thread of its own.

    Args:
        target: the address that it forwards to.
        cut_probability: for each chunk, the probability that both directions end at once.
        half_close_probability: for each connection, the probability that the answer's direction ends early.
        max_delay_seconds: the longest delay of a chunk.
    """

    def __init__(
        self,
        target: Address,
        seed: int,
        *,
        cut_probability: float = 0.002,
        half_close_probability: float = 0.02,
        max_delay_seconds: float = 0.02,
    ) -> None:
        self._target, self._random = target, random.Random(seed)
        self._cut_probability, self._half_close_probability = cut_probability, half_close_probability
        self._max_delay_seconds = max_delay_seconds
        self.cuts = 0
        # The event loop keeps only weak references to the tasks of connections.
        self._handlers: set[asyncio.Task[None] | None] = set()
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), daemon=True)
        self._thread.start()
        started.wait()

    def stop(self) -> None:
        """Close all connections and end the thread."""
        self._loop.call_soon_threadsafe(self._stop_event.set)
        self._thread.join()

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._stop_event = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        started.set()
        await self._stop_event.wait()
        server.close()
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            target_reader, target_writer = await asyncio.open_connection(self._target.host, self._target.port)
        except OSError:
            writer.close()
            return
        self._handlers.add(asyncio.current_task())
        half_closes = self._random.random() < self._half_close_probability
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, target_writer, ends_early=False))
                group.create_task(self._forward(target_reader, writer, ends_early=half_closes))
        except* (ConnectionError, OSError):
            self.cuts += 1
        except* asyncio.CancelledError:
            # The end of the proxy; a cancelled handler would be reported as a failure.
            pass
        finally:
            self._handlers.discard(asyncio.current_task())
            for end in (writer, target_writer):
                with suppress(OSError):
                    end.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, ends_early: bool) -> None:
        while chunk := await reader.read(65_536):
            await asyncio.sleep(self._random.random() ** 4 * self._max_delay_seconds)
            if self._random.random() < self._cut_probability:
                writer.write(chunk[: len(chunk) // 2])
                raise ConnectionResetError
            if ends_early and self._random.random() < 0.01:
                writer.write_eof()
                return
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
