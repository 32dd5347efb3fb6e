"""`wake`: the time until a waiting session has a post, with and without old mail, and the sessions that one wakes."""

import threading
import time
from typing import Any

from bench.checks import require
from bench.client import Client
from bench.fixtures import Agent, make_teams
from bench.requests import Address, build_tool_call
from bench.scenario import Harness, Result, Row
from bench.stats import summarize_latencies

_SESSION_COUNT = 3
_OLD_POST_COUNT = 50
_POST_COUNT = 100


class _WaitingSession(threading.Thread):
    """A session that waits again after each post, until it is sent one named `stop`.

    Attributes:
        arrivals: the time of arrival and the id of each post.
    """

    def __init__(self, address: Address, agent: Agent, key: str) -> None:
        super().__init__()
        self.arrivals: list[tuple[float, int]] = []
        self._client = Client(address, agent.token)
        self._address, self._token = address, agent.token
        self._header = f"X-Bus-Session: {key}\r\n".encode()
        self._is_stopped = threading.Event()

    def call(self, tool: str, **arguments: Any) -> dict[str, object]:
        """Call a tool for the session."""
        head, _, rest = build_tool_call(self._address, self._token, tool, **arguments).partition(b"\r\n")
        content: dict[str, object] = self._client.send(head + b"\r\n" + self._header + rest).structured_content
        return content

    def run(self) -> None:
        """Wait for posts and ack each."""
        while not self._is_stopped.is_set():
            content = self.call("wait_for", kind="inbox", timeout_seconds=2)
            arrived_at = time.perf_counter()
            posts = content.get("posts", [])
            assert isinstance(posts, list)
            for post in posts:
                self.arrivals.append((arrived_at, post["post_id"]))
                self.call("ack", post_id=post["post_id"])

    def stop(self) -> None:
        """End after the current wait."""
        self._is_stopped.set()
        self.join()
        self._client.close()


def run(harness: Harness) -> Result:
    """Time from a post to the session that it wakes, over 100 posts, with and without old posts in the inbox."""
    result = Result()
    for variant, old_posts in (("empty inbox", 0), (f"{_OLD_POST_COUNT} old posts", _OLD_POST_COUNT)):
        latencies, woken_sessions = _measure(harness, old_posts)
        summary = summarize_latencies(latencies)
        result.rows.append(Row("wake", variant, _SESSION_COUNT, 0.0, [0.0], summary, {}, 0.0))
        result.figures[variant] = {
            "posts": len(latencies),
            "p50": summary.p50,
            "p99": summary.p99,
            "max": summary.max,
            "sessions_woken_by_a_post": max(woken_sessions),
        }
        result.lines.append(
            f"{variant}: {len(latencies)} posts, each woke {max(woken_sessions)} of {_SESSION_COUNT} waiting sessions"
        )
    result.checked.append("each post woke one session")
    return result


def _measure(harness: Harness, old_posts: int) -> tuple[list[float], list[int]]:
    """Measure the seconds from sending each post to its arrival, and the number of sessions that it reached."""
    (team,) = make_teams(harness.environment.database, 1, 2)
    sender, recipient = team.agents
    addresses = harness.environment.addresses
    with Client(addresses[0], sender.token) as client:
        for _ in range(old_posts):
            client.call("post", body="An old post.", to_actor=recipient.label)
        sessions = [
            _WaitingSession(addresses[number % len(addresses)], recipient, f"bench-session-{number}")
            for number in range(_SESSION_COUNT)
        ]
        for session in sessions:
            # The session knows the old posts, and has not acked them.
            session.call("read_posts", to_me=True, unacked_only=True, limit=100)
        time.sleep(3.0)
        for session in sessions:
            session.start()
        sent: dict[int, float] = {}
        try:
            for number in range(_POST_COUNT):
                sent_at = time.perf_counter()
                post_id = client.call("post", body=f"Post {number}.", to_actor=recipient.label).structured_content[
                    "post_id"
                ]
                sent[post_id] = sent_at
                # Arrivals are sorted out below; the pause lets a session that was woken wait again.
                time.sleep(0.1)
            time.sleep(1.0)
        finally:
            for session in sessions:
                session.stop()
    arrivals = [arrival for session in sessions for arrival in session.arrivals]
    latencies = [arrived_at - sent[post_id] for arrived_at, post_id in arrivals if post_id in sent]
    counts = [sum(post_id == arrived_id for _, arrived_id in arrivals) for post_id in sent]
    require(set(counts) == {1}, f"posts reached {sorted(set(counts))} sessions instead of one")
    return latencies, counts
