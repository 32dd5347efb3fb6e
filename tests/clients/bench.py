"""The bench of one client: a repository, the kit from the running bus, three sessions, and the checks."""

import json
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.clients.bus import Bus
from tests.clients.client_repo import make_client_repo, run_client
from tests.clients.drivers.driver import Driver
from tests.clients.pair import LOOK_VARIABLES, PairBench, PairRecord
from tests.clients.sign_in import SignInRecord, run_sign_in
from tests.clients.stub_model.scripts import Script, Step
from tests.clients.stub_model.server import StubModel
from tests.clients.waking import WakeRecord, run_waking
from tests.kit.git_repo import CompletedCommand
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient

_ANSI_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
GOVERNED_FILE = "docs/adr/0001-queue.md"
LEASED_FILE = "src/new.py"
_LEASED_SURFACE = "src/**"
MAIL = "Please review the queue"


@dataclass(frozen=True)
class Sessions:
    """The recorded sessions of a client.

    Attributes:
        version: what `--version` prints.
        listing: what `mcp list` prints.
        before: a session without the kit.
        first: the first session after the installation.
        unattended: a session without a terminal and without approval.
        work: a session that uses the bus and edits files, after the kit was committed.
        seconds_to_first_result: from the start of the installation to the request with the first result of a tool.
        doctor_passed: whether the kit's doctor reported no problem after the first session.
        blocked_commit: whether the commit of the session was refused.
        pair: two sessions at the same time, and one with a subagent.
        wake: a session in a terminal that posts wake; None if the client is not woken.
        sign_in: a session without a token, after the client signed in to read only.
    """

    team: Team
    version: str
    listing: str
    before: Script
    first: Script
    unattended: Script
    work: Script
    seconds_to_first_result: float | None
    doctor_passed: bool
    blocked_commit: bool
    pair: PairRecord
    wake: WakeRecord | None
    sign_in: SignInRecord


class ClientBench:
    """A client in a repository of its own.

    Args:
        program: the command that starts the client.
        log: receives each command with its output.
    """

    def __init__(
        self,
        driver: Driver,
        program: list[str],
        bus: Bus,
        stub: StubModel,
        folder: Path,
        log: Callable[[str], object],
    ) -> None:
        self._driver, self._bus, self._stub, self._log = driver, bus, stub, log
        self._team = bus.make_team()
        self._program, self._folder = program, folder
        self._repo, self._launcher = make_client_repo(driver, program, folder, stub)
        self._repo.extra_env["LLM_BUS_TOKEN"] = self._team.alice.token

    def run(self) -> Sessions:
        """Run all sessions."""
        driver, repo, team = self._driver, self._repo, self._team
        version = self._run_client("--version").stdout.strip().splitlines()
        before = self._run_session(driver.session_arguments, [Step("start", text="Done")])

        call_steps = [Step("start", "whats_new"), Step("end", text="Done")]
        started_at = time.monotonic()
        install = f"curl -fsSL {self._bus.web_url}/kit/install.py | python3 - --wake"
        self._check(repo.run("sh", "-c", install), install)
        # Without curl the pipe ends with 0 too.
        assert (repo.root / "llm-bus.config.json").exists(), f"{install} installed nothing; is there a curl?"
        first = self._run_session(driver.session_arguments, call_steps)
        result = first.find_request_after("start")

        doctor = repo.run("python3", ".git/llm-bus/kit", "doctor")
        self._log(f"$ doctor\n{doctor.stdout}{doctor.stderr}\n")
        unattended = self._run_session(driver.default_session_arguments, call_steps)
        listing = self._run_client("mcp", "list")
        repo.git("add", "-A")
        self._check(repo.commit("kit"), "git commit")
        head = repo.git("rev-parse", "HEAD").stdout
        with self._bus.connect(team.bob.token) as bob:
            assert bob.call("claim", sequence="adr").structured_content["number"] == 1
            assert bob.call("lease", surface=_LEASED_SURFACE, note="routes").structured_content["others"] == []
            work = self._run_session(
                driver.session_arguments,
                [
                    Step("start", "whats_new"),
                    driver.write_step("edit", repo.root / LEASED_FILE, "value = 1\n"),
                    driver.write_step("number", repo.root / GOVERNED_FILE, "# A queue\n"),
                    driver.shell_step("commit", "git add -A && git commit -m work"),
                    Step("stop", text="Done", before=lambda: bob.call("post", body=MAIL, to_actor=team.alice.actor)),
                    Step("end", text="Done"),
                ],
            )
            has_head = repo.git("rev-parse", "HEAD").stdout == head
            bob.call("release", surface="*")
            pair = PairBench(driver, self._stub.book, team, bob, self._run_in_worktree).run(
                self._make_worktree("a"), self._make_worktree("b")
            )
            wake = self._run_waking(bob)
        signed_in = run_sign_in(driver, self._program, self._bus, self._stub, self._folder / "sign-in", self._log)
        for script in filter(None, (pair.first, pair.second, pair.parent, pair.subagent, signed_in.session)):
            self._log_exchanges(script)
        return Sessions(
            team,
            version[-1] if version else "",
            _ANSI_ESCAPE.sub("", listing.stdout + listing.stderr),
            before,
            first,
            unattended,
            work,
            result.received_at - started_at if result else None,
            doctor.returncode == 0,
            has_head,
            pair,
            wake,
            signed_in,
        )

    def _run_waking(self, bob: McpClient) -> WakeRecord | None:
        arguments = self._driver.terminal_arguments()
        if arguments is None:
            return None
        env = {**self._repo.env, **self._repo.extra_env}
        command = [str(self._launcher), *arguments]
        record = run_waking(command, self._repo.root, env, self._stub.book, self._team, bob)
        self._log(f"seconds until woken: {record.seconds}\n")
        return record

    def _make_worktree(self, name: str) -> Path:
        folder = self._repo.root.parent / f"worktree-{name}"
        self._repo.git("worktree", "add", "-q", "-b", name, str(folder))
        self._driver.trust(Path(self._repo.env["HOME"]), folder)
        return folder

    def _run_in_worktree(self, folder: Path, prompt: str) -> None:
        self._run_client(*self._driver.session_arguments(prompt), cwd=folder, **LOOK_VARIABLES)

    def _run_session(self, make_arguments: Callable[[str], list[str]], steps: list[Step]) -> Script:
        script = self._stub.book.add(steps)
        self._run_client(*make_arguments(f"{script.marker} Go."))
        self._log_exchanges(script)
        return script

    def _log_exchanges(self, script: Script) -> None:
        for number, exchange in enumerate(script.exchanges):
            request = json.dumps(exchange.request.body, indent=1, ensure_ascii=False)
            self._log(f"request {number} of {script.name}: {request}\nanswer ({exchange.label}): {exchange.answer}\n")

    def _run_client(
        self, *arguments: str, cwd: Path | None = None, **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        done = run_client(self._repo, self._launcher, *arguments, cwd=cwd, **variables)
        self._log(f"$ {self._driver.name} {' '.join(arguments)}\n{done.stdout}{done.stderr}\n")
        return done

    def _check(self, done: CompletedCommand, command: str) -> None:
        self._log(f"$ {command}\n{done.stdout}{done.stderr}\n")
        assert done.returncode == 0, (command, done)
