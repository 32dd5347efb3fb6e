"""Clients of a run: each is one agent, calls in a loop over one connection, and records what it knows."""

import random
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bench.requests import Address, build_tool_call, is_complete_response, parse_message, parse_response
from tests.proof.history import Operation, Outcome, Recorder, now

_SEQUENCES = ("adr", "migration", "rfc")
_SURFACES = tuple(f"src/part_{number}" for number in range(12))
_TIMEOUT_SECONDS = 60.0
_RECONNECT_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Identity:
    """The agent that a client acts as.

    Attributes:
        label: what others send posts to.
    """

    project: str
    actor: str
    label: str
    lane: str
    token: str


class Client(threading.Thread):
    """One agent that performs operations until it is stopped.

    Args:
        identity: the agent.
        peers: the others of its project.
        addresses: where gateways, or proxies before them, listen; another is chosen after each lost connection.
    """

    def __init__(
        self, identity: Identity, peers: list[Identity], addresses: list[Address], recorder: Recorder, seed: int
    ) -> None:
        super().__init__(name=identity.actor, daemon=True)
        self.failure: BaseException | None = None
        self.refused_connections = 0
        self._identity, self._peers, self._addresses, self._recorder = identity, peers, addresses, recorder
        self._random = random.Random(seed)
        self._socket: socket.socket | None = None
        self._address = addresses[0]
        self._stop_requested = threading.Event()
        self._started_tasks: list[int] = []

    def stop(self) -> None:
        """Ask the client to end after its present operation."""
        self._stop_requested.set()

    def run(self) -> None:
        """Perform operations until `stop`."""
        try:
            while not self._stop_requested.is_set():
                self._perform_operation()
        except BaseException as error:  # noqa: BLE001 - shown by the run
            self.failure = error
        finally:
            self._disconnect()

    def read_to_the_end(self) -> None:
        """Read the rest of the ledger, after the run, and close the connection."""
        while True:
            operation = self._call("whats_new", limit=500)
            if operation.outcome is Outcome.OK and not operation.result.get("more"):
                self._disconnect()
                return

    def _perform_operation(self) -> None:
        chance = self._random.random()
        if chance < 0.28:
            self._claim()
        elif chance < 0.48:
            self._post()
        elif chance < 0.60:
            self._call("whats_new", limit=200)
        elif chance < 0.72:
            self._acknowledge()
        elif chance < 0.84:
            self._lease()
        elif chance < 0.97:
            self._work_on_tasks()
        else:
            self._send_bad_call()

    def _claim(self) -> None:
        arguments = {"sequence": self._random.choice(_SEQUENCES)}
        self._call_until_answered("claim", "note", arguments)

    def _post(self) -> None:
        peer = self._random.choice(self._peers)
        recipients = self._random.choice(
            [{"to_actor": peer.actor}, {"to_lane": peer.lane}, {"to_actor": peer.actor, "to_lane": peer.lane}]
        )
        self._call_until_answered("post", "body", recipients)

    def _call_until_answered(self, tool: str, mark_argument: str, arguments: dict[str, Any]) -> None:
        """Call once, or with an idempotency key as often as it takes."""
        mark = self._recorder.new_mark(self._identity.project)
        arguments = {**arguments, mark_argument: mark}
        if self._random.random() < 0.5:
            self._call(tool, mark, **arguments)
            return
        arguments["idempotency_key"] = mark
        while self._call(tool, mark, **arguments).outcome is Outcome.UNKNOWN:
            if self._stop_requested.is_set():
                return

    def _acknowledge(self) -> None:
        inbox = self._call("read_posts", to_me=True, unacked_only=True, limit=20)
        post_ids = [post["post_id"] for post in inbox.result.get("posts", ())]
        if post_ids:
            self._call("ack", post_ids=post_ids)

    def _lease(self) -> None:
        surface = self._random.choice(_SURFACES)
        self._call("lease", surface=surface, ttl_seconds=self._random.choice((1, 600)))
        if self._random.random() < 0.7:
            self._call("release", surface=surface)

    def _work_on_tasks(self) -> None:
        chance = self._random.random()
        if chance < 0.4:
            mark = self._recorder.new_mark(self._identity.project)
            owner = {"owner": self._random.choice(self._peers).actor} if self._random.random() < 0.3 else {}
            self._call("task_create", mark, title=mark, **owner)
        elif chance < 0.7 or not self._started_tasks:
            task = self._call("task_next").result.get("task")
            if task:
                self._started_tasks.append(task["task_id"])
        elif chance < 0.8:
            task_id = self._random.choice(self._started_tasks)
            self._call("task_block", task_id=task_id, reason="waits for a review")
            self._call("task_resolve", task_id=task_id)
        else:
            self._call("task_ship", task_id=self._started_tasks.pop())

    def _send_bad_call(self) -> None:
        """Send what is to be refused and to change nothing."""
        mark = self._recorder.new_mark(self._identity.project)
        bad_calls: list[tuple[str, dict[str, Any]]] = [
            ("post", {"body": mark, "to_actor": "no-such-agent"}),
            ("post", {"body": mark}),
            ("claim", {"sequence": "Not A Name", "note": mark}),
            ("claim", {"sequence": "adr", "note": mark, "unknown": 1}),
            ("task_create", {"title": mark, "owner": "no-such-agent"}),
            ("task_create", {"title": mark, "blocked_on": [999_999_999]}),
        ]
        tool, arguments = self._random.choice(bad_calls)
        operation = self._call(tool, mark, **arguments)
        assert operation.outcome is not Outcome.OK, f"{tool} accepted {arguments}"

    def _call(self, tool: str, mark: str = "", /, **arguments: Any) -> Operation:
        # The time until a connection exists is not part of the operation: nothing was sent.
        while self._socket is None:
            self._connect()
        identity = self._identity
        invoked_at = now()
        outcome, result = self._exchange(build_tool_call(self._address, identity.token, tool, **arguments))
        operation = Operation(
            identity.actor, identity.project, tool, arguments, mark, invoked_at, now(), outcome, result
        )
        self._recorder.add(operation)
        return operation

    def _exchange(self, request: bytes) -> tuple[Outcome, dict[str, Any]]:
        assert self._socket is not None
        try:
            self._socket.sendall(request)
            received = b""
            while not received or not is_complete_response(received):
                chunk = self._socket.recv(1 << 20)
                if not chunk:
                    raise ConnectionResetError
                received += chunk
        except OSError:
            self._disconnect()
            return Outcome.UNKNOWN, {}
        status, body = parse_response(received)
        if b"\r\nconnection: close\r\n" in received:
            self._disconnect()
        if status in (429, 502, 503):
            self._disconnect()
            return Outcome.UNKNOWN, {}
        assert status == 200, f"status {status}: {body[:300]!r}"
        result = parse_message(body)["result"]
        content: dict[str, Any] = result["structuredContent"]
        if not result.get("isError"):
            return Outcome.OK, content
        return Outcome.UNKNOWN if content["error"]["code"] == "unavailable" else Outcome.REFUSED, {}

    def _connect(self) -> None:
        self._address = self._random.choice(self._addresses)
        try:
            self._socket = socket.create_connection((self._address.host, self._address.port), _TIMEOUT_SECONDS)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            self.refused_connections += 1
            time.sleep(_RECONNECT_SECONDS)

    def _disconnect(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
        self._socket = None
