"""Threads for blocking work, shared out fairly, and the way back to the event loop.

The standard executor costs two futures, a lock and a wake-up of the loop for each call; here results that are ready
together come back together. And it serves in the order of arrival, so that whoever asks most gets most; here those who
wait are served in turn, however much each of them asks for.
"""

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable
from queue import SimpleQueue
from typing import Any, TypeVar

from bus.operations.logs import belongs_to

_T = TypeVar("_T")
_About = tuple[str, str] | None
_Item = tuple[Callable[[], Any], asyncio.Future[Any], _About]


class Threads:
    """A fixed number of threads, and a queue in front of them for each who asks.

    Everything but the work itself happens on the event loop, which therefore needs no lock.
    """

    def __init__(self, count: int, name: str) -> None:
        self._work: SimpleQueue[tuple[Hashable, Callable[[], Any], asyncio.Future[Any], _About] | None] = SimpleQueue()
        self._done: deque[tuple[Hashable, asyncio.Future[Any], Any, BaseException | None]] = deque()
        # Who waits, in the order of their turns. What is handed to the threads is not taken back, so it is little:
        # enough that a thread finds something to do before the loop has heard that it is free.
        self._waiting: dict[Hashable, deque[_Item]] = {}
        self._handed = 0
        self._most_handed = 2 * count
        # A quarter of the threads is what one may hold, however much it asks for. Besides being fair to others it is
        # no slower for itself: on few cores, more at once only compete (docs/decisions/0012-fewer-hops.md).
        self._by_key: Counter[Hashable] = Counter()
        self._most_by_key = max(1, count // 4)
        self._waking = False
        self._closed = False
        self._threads = [threading.Thread(target=self._serve, name=f"{name}-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def run(self, work: Callable[[], _T], key: Hashable = None) -> "asyncio.Future[_T]":
        """Run work in a thread; call it on the event loop, which gets the result or the exception.

        Args:
            key: who asks; None for the process itself. Those who wait are served in turn.
        """
        if self._closed:
            raise RuntimeError("the threads have been closed")
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        # What the thread logs belongs to the request that asked for it.
        item = (work, future, belongs_to.get())
        if self._may_go(key) and key not in self._waiting:
            self._hand(key, item)
        else:
            self._waiting.setdefault(key, deque()).append(item)
        return future

    def close(self) -> None:
        """Finish what was given and end the threads."""
        self._closed = True
        for line in self._waiting.values():
            for item in line:
                self._work.put((None, *item))
        self._waiting.clear()
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()

    def _may_go(self, key: Hashable) -> bool:
        return self._handed < self._most_handed and (key is None or self._by_key[key] < self._most_by_key)

    def _hand(self, key: Hashable, item: _Item) -> None:
        self._handed += 1
        self._by_key[key] += 1
        self._work.put((key, *item))

    def _hand_out(self) -> None:
        """Hand work to the threads, one piece of each who waits at a time."""
        moved = True
        while moved and self._handed < self._most_handed:
            moved = False
            for key in [key for key in self._waiting if self._may_go(key)]:
                # Whoever has more goes to the end of the line.
                line = self._waiting.pop(key)
                item = line.popleft()
                if line:
                    self._waiting[key] = line
                if not item[1].cancelled():
                    self._hand(key, item)
                moved = True
                if self._handed >= self._most_handed:
                    break

    def _serve(self) -> None:
        while (item := self._work.get()) is not None:
            key, work, future, about = item
            belongs_to.set(about)
            try:
                self._done.append((key, future, work(), None))
            except StopIteration:
                # A future takes any exception but this one.
                self._done.append((key, future, None, RuntimeError("the work raised StopIteration")))
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
                self._done.append((key, future, None, error))
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
            key, future, result, error = self._done.popleft()
            self._handed -= 1
            self._by_key[key] -= 1
            if not self._by_key[key]:
                del self._by_key[key]
            if self._waiting:
                self._hand_out()
            if future.cancelled():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
