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

from bus.operations.logs import log_context

_T = TypeVar("_T")
_LogContext = tuple[str, str] | None
_WorkItem = tuple[Callable[[], Any], asyncio.Future[Any], _LogContext]


class FairExecutor:
    """A fixed number of threads, and a queue in front of them for each who asks.

    Everything but the work itself happens on the event loop, which therefore needs no lock.
    """

    def __init__(self, thread_count: int, name: str) -> None:
        self._work_queue: SimpleQueue[tuple[Hashable, Callable[[], Any], asyncio.Future[Any], _LogContext] | None] = (
            SimpleQueue()
        )
        self._completed: deque[tuple[Hashable, asyncio.Future[Any], Any, BaseException | None]] = deque()
        # Who waits, in the order of their turns. What is handed to the threads is not taken back, so it is little:
        # enough that a thread finds something to do before the loop has heard that it is free.
        self._queued_by_key: dict[Hashable, deque[_WorkItem]] = {}
        self._dispatched = 0
        self._max_dispatched = 2 * thread_count
        # A quarter of the threads is what one may hold, however much it asks for. Besides being fair to others it is
        # no slower for itself: on few cores, more at once only compete (docs/decisions/0012-fewer-hops.md).
        self._dispatched_by_key: Counter[Hashable] = Counter()
        self._max_dispatched_per_key = max(1, thread_count // 4)
        self._is_wakeup_scheduled = False
        self._is_closed = False
        self._threads = [
            threading.Thread(target=self._run_worker, name=f"{name}-{n}", daemon=True) for n in range(thread_count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[], _T], key: Hashable = None) -> "asyncio.Future[_T]":
        """Run work in a thread; call it on the event loop, which gets the result or the exception.

        Args:
            key: who asks; None for the process itself. Those who wait are served in turn.
        """
        if self._is_closed:
            raise RuntimeError("the threads have been closed")
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        # What the thread logs belongs to the request that asked for it.
        item = (work, future, log_context.get())
        if self._can_dispatch(key) and key not in self._queued_by_key:
            self._dispatch(key, item)
        else:
            self._queued_by_key.setdefault(key, deque()).append(item)
        return future

    def close(self) -> None:
        """Finish what was given and end the threads."""
        self._is_closed = True
        for line in self._queued_by_key.values():
            for item in line:
                self._work_queue.put((None, *item))
        self._queued_by_key.clear()
        for _ in self._threads:
            self._work_queue.put(None)
        for thread in self._threads:
            thread.join()

    def _can_dispatch(self, key: Hashable) -> bool:
        return self._dispatched < self._max_dispatched and (
            key is None or self._dispatched_by_key[key] < self._max_dispatched_per_key
        )

    def _dispatch(self, key: Hashable, item: _WorkItem) -> None:
        self._dispatched += 1
        self._dispatched_by_key[key] += 1
        self._work_queue.put((key, *item))

    def _dispatch_queued(self) -> None:
        """Hand work to the threads, one piece of each who waits at a time."""
        moved = True
        while moved and self._dispatched < self._max_dispatched:
            moved = False
            for key in [key for key in self._queued_by_key if self._can_dispatch(key)]:
                # Whoever has more goes to the end of the line.
                line = self._queued_by_key.pop(key)
                item = line.popleft()
                if line:
                    self._queued_by_key[key] = line
                if not item[1].cancelled():
                    self._dispatch(key, item)
                moved = True
                if self._dispatched >= self._max_dispatched:
                    break

    def _run_worker(self) -> None:
        while (item := self._work_queue.get()) is not None:
            key, work, future, about = item
            log_context.set(about)
            try:
                self._completed.append((key, future, work(), None))
            except StopIteration:
                # A future takes any exception but this one.
                self._completed.append((key, future, None, RuntimeError("the work raised StopIteration")))
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
                self._completed.append((key, future, None, error))
            # A delivery that was asked for and has not begun takes this result along: it lowers the flag first.
            if not self._is_wakeup_scheduled:
                self._is_wakeup_scheduled = True
                try:
                    future.get_loop().call_soon_threadsafe(self._deliver_results)
                except RuntimeError:
                    # The loop is closed: nobody waits any more.
                    self._is_wakeup_scheduled = False
            del item, work, future

    def _deliver_results(self) -> None:
        self._is_wakeup_scheduled = False
        while self._completed:
            key, future, result, error = self._completed.popleft()
            self._dispatched -= 1
            self._dispatched_by_key[key] -= 1
            if not self._dispatched_by_key[key]:
                del self._dispatched_by_key[key]
            if self._queued_by_key:
                self._dispatch_queued()
            if future.cancelled():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
