"""Threads for blocking work, and the way back to the event loop.

The standard executor costs two futures, a lock and a wake-up of the loop for each call; here results that are ready
together come back together.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

_T = TypeVar("_T")


class Threads:
    """A fixed number of threads that take work in the order in which it came."""

    def __init__(self, count: int, name: str) -> None:
        self._work: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        self._done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._waking = False
        self._closed = False
        self._threads = [threading.Thread(target=self._serve, name=f"{name}-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def run(self, work: Callable[[], _T]) -> "asyncio.Future[_T]":
        """Run work in a thread; call it on the event loop, which gets the result or the exception."""
        if self._closed:
            raise RuntimeError("the threads have been closed")
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._work.put((work, future))
        return future

    def close(self) -> None:
        """Finish what was given and end the threads."""
        self._closed = True
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while (item := self._work.get()) is not None:
            work, future = item
            try:
                self._done.append((future, work(), None))
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
                self._done.append((future, None, error))
            # A delivery that was asked for and has not begun takes this result along: it lowers the flag first.
            if not self._waking:
                self._waking = True
                try:
                    future.get_loop().call_soon_threadsafe(self._deliver)
                except RuntimeError:
                    # The loop is closed: nobody waits any more.
                    self._waking = False
            del item, work, future

    def _deliver(self) -> None:
        self._waking = False
        while self._done:
            future, result, error = self._done.popleft()
            if future.cancelled():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
