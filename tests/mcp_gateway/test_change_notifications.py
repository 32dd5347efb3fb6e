"""Change notifications between processes are batched, delivered once, and ignored when malformed."""

import asyncio
from collections.abc import Awaitable, Callable

import redis

from mcp_gateway.change_notifications import ChangeNotifier
from tests.concurrency import wait_until_async

_MALFORMED_MESSAGES = (
    "",
    " ",
    "x",
    "x y:z",
    "x 12",
    "x :",
    "x -1:ledger",
    "\x00",
    "x \u00b2:a",
    "x " + "9" * 5000 + ":a",
)


def _run(url: str | None, scenario: Callable[[str | None], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario(url)

    asyncio.run(main())


def test_a_notification_reaches_other_processes_once_and_its_own_at_once(redis_url: str) -> None:
    async def scenario(url: str | None) -> None:
        received: dict[str, list[tuple[int, frozenset[str]]]] = {"first": [], "second": []}
        reconnected: list[str] = []
        notifiers = [
            ChangeNotifier(
                url,
                on_change=lambda project_id, topics, name=name: received[name].append((project_id, topics)),
                on_reconnect=lambda name=name: reconnected.append(name),
            )
            for name in received
        ]
        for notifier in notifiers:
            notifier.start()
        await wait_until_async(lambda: len(reconnected) == 2)
        topics = frozenset({"inbox", "ledger"})
        # Tests of other workers share the channel and use other projects.
        notifiers[0].publish(900_001, topics)
        assert (900_001, topics) in received["first"]
        await wait_until_async(lambda: (900_001, topics) in received["second"])
        for number in range(500):
            notifiers[0].publish(900_002 + number % 3, frozenset({"ledger"}))
        await wait_until_async(
            lambda: {900_002, 900_003, 900_004} <= {project_id for project_id, _ in received["second"]}
        )
        notifiers[0].publish(900_008, topics)
        await wait_until_async(lambda: (900_008, topics) in received["second"])
        # They were sent together.
        assert len([project_id for project_id, _ in received["second"] if project_id >= 900_002]) < 50
        assert [change for change in received["first"] if change[0] == 900_001] == [(900_001, topics)]
        assert url is not None
        with redis.Redis.from_url(url) as client:
            for message in _MALFORMED_MESSAGES:
                client.publish("llm-bus:hints", message)
        notifiers[0].publish(900_009, topics)
        await wait_until_async(lambda: (900_009, topics) in received["second"])
        for notifier in notifiers:
            await notifier.stop()

    _run(redis_url, scenario)


def test_without_redis_notifications_stay_in_the_process() -> None:
    async def scenario(url: str | None) -> None:
        received: list[int] = []
        notifier = ChangeNotifier(
            url, on_change=lambda project_id, _: received.append(project_id), on_reconnect=lambda: None
        )
        notifier.start()
        notifier.publish(7, frozenset({"ledger"}))
        assert (received, notifier.is_connected) == ([7], False)
        await notifier.stop()

    _run(None, scenario)


def test_an_unreachable_redis_blocks_no_publisher() -> None:
    async def scenario(url: str | None) -> None:
        received: list[int] = []
        notifier = ChangeNotifier(
            url, on_change=lambda project_id, _: received.append(project_id), on_reconnect=lambda: None
        )
        notifier.start()
        for number in range(100):
            notifier.publish(number, frozenset({"ledger"}))
        # Its tasks outlive refused connections.
        ended, _ = await asyncio.wait(notifier._tasks, timeout=0.5)
        assert not ended
        assert (received, notifier.is_connected) == (list(range(100)), False)
        await notifier.stop()

    _run("redis://127.0.0.1:1/0", scenario)
