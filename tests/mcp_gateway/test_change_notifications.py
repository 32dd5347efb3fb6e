"""Hints between processes: many go out together, none is heard twice, and nobody's nonsense is believed."""

import asyncio
from collections.abc import Callable
from typing import Any

import redis

from mcp_gateway.change_notifications import ChangeNotifier


def _run(url: str | None, play: Callable[..., Any]) -> None:
    asyncio.run(play(url))


async def _until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not check():
            await asyncio.sleep(0.01)


def test_a_hint_reaches_others_once_and_this_process_at_once(redis_url: str) -> None:
    async def play(url: str) -> None:
        heard: dict[str, list[tuple[int, frozenset[str]]]] = {"one": [], "two": []}
        resumed: list[str] = []
        both = [
            ChangeNotifier(
                url,
                on_change=lambda project, kinds, name=name: heard[name].append((project, kinds)),
                on_reconnect=lambda name=name: resumed.append(name),
            )
            for name in heard
        ]
        for one in both:
            one.start()
        await _until(lambda: len(resumed) == 2)
        mine = frozenset({"inbox", "ledger"})
        # Tests of other workers share the channel; their projects are others.
        both[0].publish(900_001, mine)
        assert (900_001, mine) in heard["one"]
        await _until(lambda: (900_001, mine) in heard["two"])
        for number in range(500):
            both[0].publish(900_002 + number % 3, frozenset({"ledger"}))
        await _until(lambda: {900_002, 900_003, 900_004} <= {project for project, _ in heard["two"]})
        await asyncio.sleep(0.1)
        ours = [project for project, _ in heard["two"] if project >= 900_002]
        # They went out together.
        assert len(ours) < 50
        assert [one for one in heard["one"] if one[0] == 900_001] == [(900_001, mine)]
        with redis.Redis.from_url(url) as client:
            for nonsense in (
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
            ):
                client.publish("llm-bus:hints", nonsense)
        both[0].publish(900_009, mine)
        await _until(lambda: (900_009, mine) in heard["two"])
        for one in both:
            await one.stop()

    _run(redis_url, play)


def test_without_redis_hints_stay_in_the_process() -> None:
    async def play(url: str | None) -> None:
        heard: list[int] = []
        hints = ChangeNotifier(url, on_change=lambda project, _: heard.append(project), on_reconnect=lambda: None)
        hints.start()
        hints.publish(7, frozenset({"ledger"}))
        assert (heard, hints.is_connected) == ([7], False)
        await hints.stop()

    _run(None, play)


def test_a_redis_that_is_not_there_stops_nobody() -> None:
    async def play(url: str) -> None:
        heard: list[int] = []
        hints = ChangeNotifier(url, on_change=lambda project, _: heard.append(project), on_reconnect=lambda: None)
        hints.start()
        for number in range(100):
            hints.publish(number, frozenset({"ledger"}))
        await asyncio.sleep(0.5)
        assert (heard, hints.is_connected) == (list(range(100)), False)
        await hints.stop()

    _run("redis://127.0.0.1:1/0", play)
