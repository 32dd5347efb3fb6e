"""Two sessions of one client on one token at the same time, in two worktrees, and a session with a subagent."""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.clients.drivers.driver import Driver
from tests.clients.stub_model.scripts import Script, ScriptBook, Step
from tests.concurrency import wait_until
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient

FIRST, SECOND = "a", "b"
MAIL = "Please rebase before noon"
SEEN_ONCE, SEEN_BY_BOTH = "seen by each session once", "seen by parent and subagent"
_TIMEOUT_SECONDS = 150.0
_END_SECONDS = 5.0
# The hooks look for mail after every tool, not once in 20 seconds.
LOOK_VARIABLES = {"LLM_BUS_LOOK_SECONDS": "0"}


@dataclass
class PairRecord:
    """What happened to the sessions.

    Attributes:
        first, second: the two sessions at the same time.
        held: the surfaces that were leased after the first session released all of its own.
        left: the surfaces that were still leased some seconds after both sessions had ended.
        parent, subagent: a session that started a subagent, and the subagent; None if the client starts none.
    """

    first: Script
    second: Script
    held: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    parent: Script | None = None
    subagent: Script | None = None


class PairBench:
    """Runs the sessions.

    Args:
        bob: a connection of the other participant.
        run_client: runs a client in a folder with a prompt, until it ends.
    """

    def __init__(
        self, driver: Driver, book: ScriptBook, team: Team, bob: McpClient, run_client: Callable[[Path, str], object]
    ) -> None:
        self._driver, self._book, self._team, self._bob, self._run_client = driver, book, team, bob, run_client

    def run(self, first_folder: Path, second_folder: Path) -> PairRecord:
        """Run two sessions that meet before each step, then one with a subagent."""
        record = PairRecord(Script([]), Script([]))
        folders = (first_folder, second_folder)

        def post() -> None:
            wait_until(lambda: all((folder / "started").exists() for folder in folders), _TIMEOUT_SECONDS)
            self._bob.call("post", body=MAIL, to_actor=self._team.alice.actor)
            for folder in folders:
                (folder / "posted").touch()

        def look_and_post() -> None:
            record.held = self._list_surfaces()
            # While both sessions run a command.
            threading.Thread(target=post, daemon=True).start()

        joined, edited = _meeting(), _meeting()
        claimed = _meeting(lambda: self._bob.call("claim", sequence="adr", note=SEEN_ONCE))
        released = _meeting(look_and_post)

        def make_script(name: str, steps: list[Step]) -> Script:
            lease = {"surface": f"src/{name}/**", "note": f"of session {name}"}
            command = self._driver.shell_step("command", "touch started; until [ -e posted ]; do sleep 0.05; done")
            return self._book.add(
                [
                    Step("join", "whats_new", before=joined),
                    Step("lease", "lease", lease),
                    Step("news", "whats_new", before=claimed),
                    Step("again", "whats_new"),
                    *steps,
                    replace(command, before=released),
                    Step("end", text="Done"),
                ]
            )

        foreign_file = first_folder / "src" / SECOND / "edited.py"
        record.first = make_script(
            FIRST,
            [
                self._driver.write_step("edit", foreign_file, "value = 1\n"),
                Step("release", "release", {"surface": "*"}, before=edited),
            ],
        )
        record.second = make_script(SECOND, [Step("wait", "whats_new", before=edited)])
        threads = [
            threading.Thread(target=self._run_client, args=(folder, f"{script.marker} Go."))
            for folder, script in zip(folders, (record.first, record.second), strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # OpenCode's plugin starts a process at the exit, which may end the leases after the client has gone.
        with suppress(AssertionError):
            wait_until(lambda: not self._list_surfaces(), _END_SECONDS)
        record.left = self._list_surfaces()
        self._run_subagent(record, first_folder)
        return record

    def _run_subagent(self, record: PairRecord, folder: Path) -> None:
        """Run a session whose subagent reads the news before it."""
        has_read = threading.Event()
        subagent = self._book.add(
            [Step("news", "whats_new"), Step("end", text="Read them.", before=lambda: has_read.set())]
        )
        start = self._driver.subagent_step("start", f"{subagent.marker} Read the news.")
        if start is None:
            return

        def claim() -> None:
            self._bob.call("claim", sequence="adr", note=SEEN_BY_BOTH)

        record.subagent = subagent
        record.parent = self._book.add(
            [
                Step("join", "whats_new"),
                replace(start, before=claim),
                Step("news", "whats_new", before=lambda: has_read.wait(_TIMEOUT_SECONDS)),
                Step("end", text="Done"),
            ]
        )
        self._run_client(folder, f"{record.parent.marker} Go.")

    def _list_surfaces(self) -> list[str]:
        leases = self._bob.call("who_holds").structured_content["leases"]
        return sorted(lease["surface"] for lease in leases)


def _meeting(action: Callable[[], object] | None = None) -> Callable[[], object]:
    """Return a function in which both sessions wait for each other; one of them then runs the action."""

    def act() -> None:
        if action is not None:
            action()

    barrier = threading.Barrier(2, action=act)
    return lambda: barrier.wait(_TIMEOUT_SECONDS)
