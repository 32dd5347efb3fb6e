"""An idle session in a terminal, and the posts that wake it: one to an empty inbox, and one beside an old post."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.clients.stub_model.scripts import Script, ScriptBook, Step
from tests.clients.terminal import Terminal
from tests.concurrency import wait_until
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient

SUBJECTS = ("Please look at the first wake", "Please look at the second wake")
_TIMEOUT_SECONDS = 90.0


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
    with Terminal([*command, f"{script.marker} Go."], folder, env) as terminal:
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
