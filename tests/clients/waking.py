"""An idle session in a terminal, and the posts that wake it: one to an empty inbox, and one beside an old post."""

import os
import pty
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.clients.stub_model.scripts import Script, ScriptBook, Step
from tests.concurrency import wait_until
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient

SUBJECTS = ("Please look at the first wake", "Please look at the second wake")
_TIMEOUT_SECONDS = 90.0
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class WakeRecord:
    """What woke the session.

    Attributes:
        seconds: from each post to the request that shows it; the first is still unacked at the second.
    """

    seconds: tuple[float, ...]


def run_waking(
    command: list[str], folder: Path, env: Mapping[str, str], book: ScriptBook, team: Team, bob: McpClient
) -> WakeRecord:
    """Run a client in a terminal until it is idle, and send it two posts, each once it waits.

    Args:
        command: starts the client; the prompt is its last argument.
    """
    script = book.add([Step("end", text="Done"), *(Step(subject, text="Seen.") for subject in SUBJECTS)])
    with _Terminal([*command, f"{script.marker} Go."], folder, env) as terminal:
        seconds = [_wake(script, subject, team, bob, terminal.describe) for subject in SUBJECTS]
    return WakeRecord(tuple(seconds))


def _wake(script: Script, subject: str, team: Team, bob: McpClient, describe: Callable[[], str]) -> float:
    def is_waiting() -> bool:
        active = bob.call("who_is_active").structured_content["active"]
        return any(row["actor"] == team.alice.actor and row.get("wake") == "waiting" for row in active)

    wait_until(is_waiting, _TIMEOUT_SECONDS, describe=describe)
    posted_at = time.monotonic()
    bob.call("post", body="When you have time.", subject=subject, to_actor=team.alice.actor)
    wait_until(lambda: any(e.request.contains(subject) for e in script.exchanges), _TIMEOUT_SECONDS, describe=describe)
    exchange = next(exchange for exchange in script.exchanges if exchange.request.contains(subject))
    return exchange.request.received_at - posted_at


class _Terminal:
    """A program in a terminal of its own, whose output is read and kept."""

    def __init__(self, command: list[str], folder: Path, env: Mapping[str, str]) -> None:
        self._master, slave = pty.openpty()
        self._output = bytearray()
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env={**env, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def __enter__(self) -> "_Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        except ProcessLookupError:
            self._process.wait()
        self._reading.join(_STOP_SECONDS)
        os.close(self._master)

    def describe(self) -> str:
        """Return the end of the output."""
        return self._output[-3000:].decode("utf-8", "replace")

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._master, 65536)
            except OSError:
                return
            if not chunk:
                return
            self._output += chunk
