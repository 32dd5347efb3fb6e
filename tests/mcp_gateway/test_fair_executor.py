"""The way from the event loop to a thread and back."""

import asyncio
import threading
import time

import pytest

from bus.operations.logs import log_context
from mcp_gateway.fair_executor import FairExecutor


def test_results_and_exceptions_come_back_to_whoever_asked() -> None:
    async def play() -> list[object]:
        def fail() -> None:
            raise ValueError("no")

        asked = [threads.submit(lambda n=n: n) for n in range(500)] + [threads.submit(fail)]
        return await asyncio.gather(*asked, return_exceptions=True)

    threads = FairExecutor(4, "test")
    *numbers, error = asyncio.run(play())
    threads.close()
    assert numbers == list(range(500))
    assert isinstance(error, ValueError)


def test_what_a_thread_says_belongs_to_the_request_that_asked() -> None:
    """Also of a request that had to wait, and of nobody's after somebody's."""

    async def ask(number: int) -> list[tuple[str, str] | None]:
        log_context.set(("request_id", str(number)))
        return await asyncio.gather(*(threads.submit(log_context.get, number) for _ in range(20)))

    async def play() -> tuple[list[list[tuple[str, str] | None]], tuple[str, str] | None]:
        asked = await asyncio.gather(*(ask(number) for number in range(20)))
        return asked, await threads.submit(log_context.get)

    threads = FairExecutor(3, "test")
    found, nobodys = asyncio.run(play())
    threads.close()
    assert found == [[("request_id", str(number))] * 20 for number in range(20)]
    assert nobodys is None


def test_no_result_is_lost_between_two_wake_ups() -> None:
    """Results that come at every moment of a delivery, over and over: each arrives without another to push it."""

    async def play() -> None:
        for _ in range(3000):
            await asyncio.wait_for(asyncio.gather(threads.submit(lambda: 1), threads.submit(lambda: 2)), 20)

    threads = FairExecutor(2, "test")
    asyncio.run(play())
    threads.close()


def test_as_many_run_at_once_as_there_are_threads() -> None:
    async def play() -> None:
        await asyncio.gather(*(threads.submit(lambda: barrier.wait(20)) for _ in range(6)))

    barrier = threading.Barrier(3)
    threads = FairExecutor(3, "test")
    asyncio.run(play())
    threads.close()


def test_who_was_cancelled_does_not_stop_the_others() -> None:
    async def play() -> int:
        gone = threads.submit(lambda: time.sleep(0.2))
        stays = threads.submit(lambda: 7)
        gone.cancel()
        return await asyncio.wait_for(stays, 20)

    threads = FairExecutor(1, "test")
    assert asyncio.run(play()) == 7
    threads.close()


def test_closing_finishes_what_was_given() -> None:
    async def play() -> None:
        for number in range(20):
            threads.submit(lambda number=number: done.append(number))
        await asyncio.to_thread(threads.close)
        with pytest.raises(RuntimeError):
            threads.submit(lambda: None)

    done: list[int] = []
    threads = FairExecutor(2, "test")
    asyncio.run(play())
    assert sorted(done) == list(range(20))


def test_those_who_wait_are_served_in_turn() -> None:
    """Forty of one and two of another, who came last: the other is not behind the forty."""

    async def play() -> None:
        many = [threads.submit(lambda n=n: work(f"a{n}"), "a") for n in range(40)]
        few = [threads.submit(lambda n=n: work(f"b{n}"), "b") for n in range(2)]
        await asyncio.gather(*many, *few)

    def work(name: str) -> None:
        time.sleep(0.002)
        done.append(name)

    done: list[str] = []
    threads = FairExecutor(1, "test")
    asyncio.run(play())
    threads.close()
    # One was handed to the thread already, then they take turns.
    assert [done.index("b0"), done.index("b1")] == [1, 3]
    assert [name for name in done if name[0] == "a"] == [f"a{n}" for n in range(40)]


def test_who_stopped_waiting_costs_no_thread() -> None:
    async def play() -> None:
        running = [threads.submit(lambda: time.sleep(0.05)) for _ in range(2)]
        gone = [threads.submit(lambda: done.append("gone"), "a") for _ in range(5)]
        stays = threads.submit(lambda: done.append("stays"), "b")
        for future in gone:
            future.cancel()
        await asyncio.gather(*running, stays)

    done: list[str] = []
    threads = FairExecutor(1, "test")
    asyncio.run(play())
    threads.close()
    assert done == ["stays"]


def test_one_thread_is_left_to_the_others() -> None:
    """Somebody keeps threads busy as long as it likes: whoever comes then is served meanwhile."""

    async def play() -> None:
        many = [threads.submit(lambda: gate.wait(20), "a") for _ in range(10)]
        await asyncio.wait_for(threads.submit(lambda: None, "b"), 20)
        gate.set()
        await asyncio.gather(*many)

    gate = threading.Event()
    threads = FairExecutor(3, "test")
    asyncio.run(play())
    threads.close()
