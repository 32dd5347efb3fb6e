"""Threads for blocking work, shared fairly between tenants, with batched delivery of results to the event loop.

The standard executor costs two futures, a lock and a wake-up of the loop for each call; here results that are ready
together are delivered in one wake-up. The standard executor also serves in order of arrival, so the busiest caller gets
the most; here tenants are served in turn, and the keys of each, regardless of how much work each of them submits.
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
# A tenant and one of its keys.
_Share = tuple[Hashable, Hashable]


class FairExecutor:
    """A fixed number of threads with one queue for each key of each tenant.

    Everything except the work itself runs on the event loop and therefore needs no lock.
    """

    def __init__(self, thread_count: int, name: str) -> None:
        self._work_queue: SimpleQueue[tuple[_Share, Callable[[], Any], asyncio.Future[Any], _LogContext] | None] = (
            SimpleQueue()
        )
        self._completed: deque[tuple[_Share, asyncio.Future[Any], Any, BaseException | None]] = deque()
        # Queued work by tenant and key, in the order of their turns. Dispatched work cannot be taken back, so little of
        # it is dispatched ahead: enough that a thread has work before the loop learns that it is free.
        self._queued: dict[Hashable, dict[Hashable, deque[_WorkItem]]] = {}
        self._dispatched = 0
        self._max_dispatched = 2 * thread_count
        # One key may hold a quarter of the threads. This is fair to others and no slower for the key itself: on few
        # cores, more concurrent calls only compete (docs/decisions/0012-thread-scheduling.md). A tenant with many keys
        # may hold half of them, so that there is a thread for the others even while its keys wait for locks.
        self._dispatched_by_key: Counter[_Share] = Counter()
        self._dispatched_by_tenant: Counter[Hashable] = Counter()
        self._max_dispatched_per_key = max(1, thread_count // 4)
        self._max_dispatched_per_tenant = max(1, thread_count // 2)
        self._is_wakeup_scheduled = False
        self._is_closed = False
        self._threads = [
            threading.Thread(target=self._run_worker, name=f"{name}-{n}", daemon=True) for n in range(thread_count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[], _T], key: Hashable = None, *, tenant: Hashable = None) -> "asyncio.Future[_T]":
        """Run work in a thread; must be called on the event loop, which receives the result or the exception.

        Args:
            work: the function to run.
            key: the part of a tenant that the work belongs to, such as a project; queued keys are served in turn.
                None, for the process itself, has no quota.
            tenant: the owner of the key; queued tenants are served in turn. None has no quota.
        """
        if self._is_closed:
            raise RuntimeError("the threads have been closed")
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        # The thread logs under the correlation id of the request.
        item = (work, future, log_context.get())
        share = (tenant, key)
        if self._can_dispatch(share) and key not in self._queued.get(tenant, ()):
            self._dispatch(share, item)
        else:
            self._queued.setdefault(tenant, {}).setdefault(key, deque()).append(item)
        return future

    def close(self) -> None:
        """Finish all submitted work and end the threads."""
        self._is_closed = True
        for by_key in self._queued.values():
            for queue in by_key.values():
                for item in queue:
                    self._dispatch((None, None), item)
        self._queued.clear()
        for _ in self._threads:
            self._work_queue.put(None)
        for thread in self._threads:
            thread.join()

    def _can_dispatch(self, share: _Share) -> bool:
        tenant, key = share
        return (
            self._dispatched < self._max_dispatched
            and (key is None or self._dispatched_by_key[share] < self._max_dispatched_per_key)
            and (tenant is None or self._dispatched_by_tenant[tenant] < self._max_dispatched_per_tenant)
        )

    def _dispatch(self, share: _Share, item: _WorkItem) -> None:
        self._dispatched += 1
        self._dispatched_by_key[share] += 1
        self._dispatched_by_tenant[share[0]] += 1
        self._work_queue.put((share, *item))

    def _dispatch_queued(self) -> None:
        """Dispatch queued work round-robin, one item per tenant and round."""
        has_progress = True
        while has_progress and self._dispatched < self._max_dispatched:
            has_progress = False
            for tenant in list(self._queued):
                has_progress = self._dispatch_next_of(tenant) or has_progress

    def _dispatch_next_of(self, tenant: Hashable) -> bool:
        """Dispatch one item of a tenant, of its keys in turn; return False if its quotas are used up."""
        by_key = self._queued[tenant]
        for key in by_key:
            if self._can_dispatch((tenant, key)):
                break
        else:
            return False
        # What has more work goes to the end of the order.
        queue = by_key.pop(key)
        item = queue.popleft()
        if queue:
            by_key[key] = queue
        del self._queued[tenant]
        if by_key:
            self._queued[tenant] = by_key
        if not item[1].cancelled():
            self._dispatch((tenant, key), item)
        return True

    def _run_worker(self) -> None:
        while (item := self._work_queue.get()) is not None:
            share, work, future, item_log_context = item
            log_context.set(item_log_context)
            try:
                self._completed.append((share, future, work(), None))
            except StopIteration:
                # A future accepts every exception except this one.
                self._completed.append((share, future, None, RuntimeError("the work raised StopIteration")))
            except BaseException as error:  # noqa: BLE001 - raised to the awaiting caller
                self._completed.append((share, future, None, error))
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
            share, future, result, error = self._completed.popleft()
            self._release(share)
            if self._queued:
                self._dispatch_queued()
            if future.cancelled():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def _release(self, share: _Share) -> None:
        tenant = share[0]
        self._dispatched -= 1
        self._dispatched_by_key[share] -= 1
        if not self._dispatched_by_key[share]:
            del self._dispatched_by_key[share]
        self._dispatched_by_tenant[tenant] -= 1
        if not self._dispatched_by_tenant[tenant]:
            del self._dispatched_by_tenant[tenant]
