"""FairExecutor runs work in threads, delivers the results, and serves the keys in turn."""

import asyncio
import threading

import pytest

from bus.operations.logs import log_context
from mcp_gateway.fair_executor import FairExecutor


def test_results_and_exceptions_reach_the_caller() -> None:
    async def main() -> list[object]:
        def fail() -> None:
            raise ValueError("no")

        futures = [executor.submit(lambda n=n: n) for n in range(500)] + [executor.submit(fail)]
        return await asyncio.gather(*futures, return_exceptions=True)

    executor = FairExecutor(4, "test")
    *numbers, error = asyncio.run(main())
    executor.close()
    assert numbers == list(range(500))
    assert isinstance(error, ValueError)


def test_a_thread_logs_under_the_request_of_its_work() -> None:
    """This includes queued requests, and work without a request after work with one."""

    async def submit_twenty(number: int) -> list[tuple[str, str] | None]:
        log_context.set(("request_id", str(number)))
        return await asyncio.gather(*(executor.submit(log_context.get, number) for _ in range(20)))

    async def main() -> tuple[list[list[tuple[str, str] | None]], tuple[str, str] | None]:
        contexts = await asyncio.gather(*(submit_twenty(number) for number in range(20)))
        return contexts, await executor.submit(log_context.get)

    executor = FairExecutor(3, "test")
    contexts, context_without_request = asyncio.run(main())
    executor.close()
    assert contexts == [[("request_id", str(number))] * 20 for number in range(20)]
    assert context_without_request is None


def test_no_result_is_lost_between_two_wake_ups() -> None:
    """Results that become ready at any moment of a delivery arrive without a later result."""

    async def main() -> None:
        for _ in range(3000):
            await asyncio.wait_for(asyncio.gather(executor.submit(lambda: 1), executor.submit(lambda: 2)), 20)

    executor = FairExecutor(2, "test")
    asyncio.run(main())
    executor.close()


def test_all_threads_run_work_at_the_same_time() -> None:
    async def main() -> None:
        await asyncio.gather(*(executor.submit(lambda: barrier.wait(20)) for _ in range(6)))

    barrier = threading.Barrier(3)
    executor = FairExecutor(3, "test")
    asyncio.run(main())
    executor.close()


def test_a_cancelled_call_does_not_stop_the_others() -> None:
    async def main() -> int:
        cancelled = executor.submit(lambda: released.wait(20))
        kept = executor.submit(lambda: 7)
        cancelled.cancel()
        released.set()
        return await asyncio.wait_for(kept, 20)

    released = threading.Event()
    executor = FairExecutor(1, "test")
    assert asyncio.run(main()) == 7
    executor.close()


def test_closing_finishes_submitted_work() -> None:
    async def main() -> None:
        for number in range(20):
            executor.submit(lambda number=number: done.append(number))
        await asyncio.to_thread(executor.close)
        with pytest.raises(RuntimeError):
            executor.submit(lambda: None)

    done: list[int] = []
    executor = FairExecutor(2, "test")
    asyncio.run(main())
    assert sorted(done) == list(range(20))


def test_queued_keys_are_served_in_turn() -> None:
    """Two items of one key, submitted after forty of another, do not wait for the forty."""

    async def main() -> None:
        many = [executor.submit(lambda n=n: work(f"a{n}"), "a") for n in range(40)]
        few = [executor.submit(lambda n=n: work(f"b{n}"), "b") for n in range(2)]
        submitted.set()
        await asyncio.gather(*many, *few)

    def work(name: str) -> None:
        # Nothing runs before everything is submitted.
        submitted.wait(20)
        done.append(name)

    submitted = threading.Event()
    done: list[str] = []
    executor = FairExecutor(1, "test")
    asyncio.run(main())
    executor.close()
    # One item was dispatched already; then the keys take turns.
    assert [done.index("b0"), done.index("b1")] == [1, 3]
    assert [name for name in done if name[0] == "a"] == [f"a{n}" for n in range(40)]


def test_a_cancelled_queued_call_uses_no_thread() -> None:
    async def main() -> None:
        running = [executor.submit(lambda: released.wait(20)) for _ in range(2)]
        cancelled = [executor.submit(lambda: done.append("gone"), "a") for _ in range(5)]
        kept = executor.submit(lambda: done.append("stays"), "b")
        for future in cancelled:
            future.cancel()
        released.set()
        await asyncio.gather(*running, kept)

    released = threading.Event()
    done: list[str] = []
    executor = FairExecutor(1, "test")
    asyncio.run(main())
    executor.close()
    assert done == ["stays"]


def test_one_key_never_occupies_all_threads() -> None:
    """While one key keeps its threads busy, another key is served."""

    async def main() -> None:
        many = [executor.submit(lambda: gate.wait(20), "a") for _ in range(10)]
        await asyncio.wait_for(executor.submit(lambda: None, "b"), 20)
        gate.set()
        await asyncio.gather(*many)

    gate = threading.Event()
    executor = FairExecutor(3, "test")
    asyncio.run(main())
    executor.close()


def test_a_tenant_with_many_keys_never_occupies_all_threads() -> None:
    """While all keys of one tenant are busy, another tenant is served."""

    async def main() -> None:
        many = [executor.submit(lambda: gate.wait(20), key, tenant="a") for key in range(10)]
        await asyncio.wait_for(executor.submit(lambda: None, "b", tenant="b"), 20)
        gate.set()
        await asyncio.gather(*many)

    gate = threading.Event()
    executor = FairExecutor(4, "test")
    asyncio.run(main())
    executor.close()


def test_queued_tenants_are_served_in_turn() -> None:
    """A tenant with one key waits no longer than one item of a tenant with many keys."""

    async def main() -> None:
        many = [executor.submit(lambda key=key: work(f"a{key}"), key, tenant="a") for key in range(20)]
        few = [executor.submit(lambda n=n: work(f"b{n}"), "b", tenant="b") for n in range(2)]
        submitted.set()
        await asyncio.gather(*many, *few)

    def work(name: str) -> None:
        submitted.wait(20)
        done.append(name)

    submitted = threading.Event()
    done: list[str] = []
    executor = FairExecutor(1, "test")
    asyncio.run(main())
    executor.close()
    assert [done.index("b0"), done.index("b1")] == [1, 3]
