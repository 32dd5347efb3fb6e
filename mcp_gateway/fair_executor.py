"""Threads for blocking work, shared fairly between keys, with batched delivery of results to the event loop.

The standard executor costs two futures, a lock and a wake-up of the loop for each call; here results that are ready
together are delivered in one wake-up. The standard executor also serves in order of arrival, so the busiest caller gets
the most; here queued keys are served in turn, regardless of how much work each of them submits.
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
    """A fixed number of threads with one queue per key.

    Everything except the work itself runs on the event loop and therefore needs no lock.
    """

    def __init__(self, thread_count: int, name: str) -> None:
        self._work_queue: SimpleQueue[tuple[Hashable, Callable[[], Any], asyncio.Future[Any], _LogContext] | None] = (
            SimpleQueue()
        )
        self._completed: deque[tuple[Hashable, asyncio.Future[Any], Any, BaseException | None]] = deque()
        # Queued work by key, in the order of their turns. Dispatched work cannot be taken back, so little of it is
        # dispatched ahead: enough that a thread has work before the loop learns that it is free.
        self._queued_by_key: dict[Hashable, deque[_WorkItem]] = {}
        self._dispatched = 0
        self._max_dispatched = 2 * thread_count
        # One key may hold a quarter of the threads. This is fair to others and no slower for the key itself: on few
        # cores, more concurrent calls only compete (docs/decisions/0012-thread-scheduling.md).
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
        """Run work in a thread; must be called on the event loop, which receives the result or the exception.

        Args:
            work: the function to run.
            key: the tenant of the work; queued keys are served in turn. None, for the process itself, has no quota.
        """
        if self._is_closed:
            raise RuntimeError("the threads have been closed")
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        # The thread logs under the correlation id of the request.
        item = (work, future, log_context.get())
        if self._can_dispatch(key) and key not in self._queued_by_key:
            self._dispatch(key, item)
        else:
            self._queued_by_key.setdefault(key, deque()).append(item)
        return future

    def close(self) -> None:
        """Finish all submitted work and end the threads."""
        self._is_closed = True
        for queue in self._queued_by_key.values():
            for item in queue:
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
        """Dispatch queued work round-robin, one item per key and round."""
        has_progress = True
        while has_progress and self._dispatched < self._max_dispatched:
            has_progress = False
            for key in [key for key in self._queued_by_key if self._can_dispatch(key)]:
                # A key with more work goes to the end of the order.
                queue = self._queued_by_key.pop(key)
                item = queue.popleft()
                if queue:
                    self._queued_by_key[key] = queue
                if not item[1].cancelled():
                    self._dispatch(key, item)
                has_progress = True
                if self._dispatched >= self._max_dispatched:
                    break

    def _run_worker(self) -> None:
        while (item := self._work_queue.get()) is not None:
            key, work, future, item_log_context = item
            log_context.set(item_log_context)
            try:
                self._completed.append((key, future, work(), None))
            except StopIteration:
                # A future accepts every exception except this one.
                self._completed.append((key, future, None, RuntimeError("the work raised StopIteration")))
            except BaseException as error:  # noqa: BLE001 - raised to the awaiting caller
                self._completed.append((key, future, None, error))
            # A scheduled delivery that has not begun also delivers this result, since it clears the flag first.
            if not self._is_wakeup_scheduled:
                self._is_wakeup_scheduled = True
                try:
                    future.get_loop().call_soon_threadsafe(self._deliver_results)
                except RuntimeError:
                    # The loop is closed and no caller awaits the result.
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
