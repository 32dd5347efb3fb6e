"""The commands that call tools over MCP (`llm-bus agent claim` and others), and the mirror."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bus.db import Database
from cli import data_dir, runtime
from cli.client import Client
from cli.exit_codes import ExitCode
from cli.main import main
from cli.runtime import RuntimeInfo
from tests import servers
from tests.factories import make_agent, make_project
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.processes import GatewayProcess, running_gateways


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Database, GatewayProcess]]:
    with servers.cloned_database() as url, running_gateways(url) as (process,):
        database = Database(url, pool_size=2)
        yield database, process
        database.close()


@pytest.fixture
def team(served: tuple[Database, GatewayProcess]) -> Team:
    return make_team(served[0])


class Cli:
    """`llm-bus` with the token of one agent, without a database."""

    def __init__(self, url: str, token: str) -> None:
        self.env: dict[str, str | None] = {"LLM_BUS_URL": url, "LLM_BUS_TOKEN": token, "DATABASE_URL": None}

    def run(self, *words: str, stdin: str | None = None, **env: str | None) -> Result:
        return CliRunner().invoke(main, words, env={**self.env, **env}, input=stdin)

    def json(self, *words: str, code: ExitCode = ExitCode.OK) -> Any:
        result = self.run(*words, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)


@pytest.fixture
def alice(served: tuple[Database, GatewayProcess], team: Team) -> Cli:
    return Cli(served[1].url, team.alice.token)


@pytest.fixture
def bob(served: tuple[Database, GatewayProcess], team: Team) -> Cli:
    return Cli(served[1].url, team.bob.token)


def test_claim_prints_only_the_number(alice: Cli) -> None:
    assert alice.run("agent", "claim", "adr").stdout == "1\n"
    assert alice.json("agent", "claim", "adr", "--note", "x", "--key", "k")["number"] == 2
    assert alice.json("agent", "claim", "adr", "--note", "x", "--key", "k")["number"] == 2


def test_a_handoff_is_posted_received_and_acked(alice: Cli, bob: Cli) -> None:
    posted = alice.json("agent", "post", "please review", "--to", "bob", "--ref", "PR 1", "--subject", "Review")
    assert posted["recipients"] == 1
    (waiting,) = bob.json("agent", "wait", "inbox", "--timeout", "20")["posts"]
    assert waiting["post_id"] == posted["post_id"]
    assert "Review" in bob.run("agent", "wait", "inbox").stdout
    assert len(bob.json("agent", "ack", str(posted["post_id"]))["acked"]) == 1
    assert alice.run("agent", "post", "-", "--lane", "web", stdin="from a pipe").exit_code == 0
    assert bob.run("agent", "post", "x", "--to", "unknown").exit_code == ExitCode.NOT_FOUND


def test_contention_exits_with_code_6(alice: Cli, bob: Cli) -> None:
    assert alice.json("agent", "lease", "src/api", "--ttl", "600")["others"] == []
    assert alice.run("agent", "who-holds", "src").exit_code == ExitCode.OK
    assert bob.run("agent", "who-holds", "src/api/x.py").exit_code == ExitCode.CONTENTION
    assert bob.run("agent", "who-holds").exit_code == ExitCode.OK
    contended = bob.json("agent", "lease", "src/**", "--back-off", code=ExitCode.CONTENTION)
    assert [other["surface"] for other in contended["others"]] == ["src/api"]
    assert [lease["surface"] for lease in bob.json("agent", "who-holds")["leases"]] == ["src/api"]
    bob.json("agent", "lease", "src/**", code=ExitCode.CONTENTION)
    assert len(bob.json("agent", "who-holds")["leases"]) == 2
    assert alice.json("agent", "release", "*")["released"] == 1


def test_a_wait_that_times_out_exits_with_code_7(alice: Cli) -> None:
    assert alice.json("agent", "wait", "inbox", "--timeout", "1", code=ExitCode.TIMED_OUT) == {"timed_out": True}


def test_tasks_are_listed(alice: Cli) -> None:
    assert alice.run("agent", "tasks").stdout == "None.\n"
    assert alice.json("agent", "tasks", "--ready", "--status", "open")["tasks"] == []


def test_refusals_and_outages_print_one_line_and_fail_open_covers_only_outages(alice: Cli, tmp_path: Path) -> None:
    # No bus runs in this folder.
    alice.env["LLM_BUS_DATA"] = str(tmp_path)
    for words, env, code in (
        (("agent", "claim", "NOT ALLOWED"), {}, ExitCode.FAILED),
        (("agent", "claim", "adr"), {"LLM_BUS_TOKEN": "lbus_wrong"}, ExitCode.FAILED),
        (("agent", "claim", "adr"), {"LLM_BUS_TOKEN": None}, ExitCode.UNAVAILABLE),
        (("agent", "claim", "adr"), {"LLM_BUS_URL": None}, ExitCode.UNAVAILABLE),
        (("agent", "claim", "adr"), {"LLM_BUS_URL": "http://127.0.0.1:1/mcp"}, ExitCode.UNAVAILABLE),
    ):
        result = alice.run(*words, **env)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (code, "", 1), result.output
    unreachable = {"LLM_BUS_URL": "http://127.0.0.1:1/mcp"}
    result = alice.run("agent", "claim", "adr", "--fail-open", **unreachable)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "Continuing without the bus" in result.stderr
    result = alice.run("agent", "claim", "adr", "--fail-open", "--json", **unreachable)
    assert "unavailable" in json.loads(result.stdout)
    # A refusal is not an outage.
    assert alice.run("agent", "claim", "NOT ALLOWED", "--fail-open").exit_code == ExitCode.FAILED


def test_without_an_address_the_bus_of_this_machine_is_called(
    alice: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.env["LLM_BUS_DATA"] = str(tmp_path)
    assert "set it to the address of the bus, https://BUS/mcp" in alice.run("agent", "tasks", LLM_BUS_URL=None).stderr
    url = str(alice.env["LLM_BUS_URL"])
    running = RuntimeInfo("", "", "", url, web=False, data=str(tmp_path), ports={})
    monkeypatch.setattr(data_dir, "locate", lambda explicit: tmp_path)
    monkeypatch.setattr(runtime, "find_running", lambda data: running if data == tmp_path else None)
    assert alice.run("agent", "tasks", LLM_BUS_URL=None).stdout == "None.\n"
    # An address that is set is the one that is called.
    assert alice.run("agent", "tasks", LLM_BUS_URL="http://127.0.0.1:1/mcp").exit_code == ExitCode.UNAVAILABLE


def test_a_mirror_appends_new_events_and_changes_no_byte_without_any(
    alice: Cli, bob: Cli, team: Team, tmp_path: Path
) -> None:
    out = tmp_path / "mirror"
    project = team.alice.project
    assert alice.json("mirror", project, str(out)) | {"state_changed": True} == {
        "project": project,
        "events": 0,
        "added": 0,
        "state_changed": True,
    }
    for _ in range(3):
        alice.json("agent", "claim", "adr", "--note", "a | b <i>")
    alice.json("agent", "lease", "src/**", "--note", "*work*")
    bob.json("agent", "post", "body", "--to", "alice", "--subject", "S | T")
    result = alice.json("mirror", f"{team.alice.handle}/{project}", str(out))
    assert (result["events"], result["added"]) == (5, 5)
    lines = (out / "ledger.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [1, 2, 3, 4, 5]
    assert "mine" not in lines[0]
    state = (out / "state.md").read_text()
    for part in ("| adr | 3 | 4 |", "src/\\*\\*", "S \\| T", "5 events"):
        assert part in state, state
    content = {path.name: path.read_bytes() for path in out.iterdir()}
    assert alice.json("mirror", project, str(out))["added"] == 0
    # Every participant gets the same bytes.
    assert bob.json("mirror", project, str(out))["state_changed"] is False
    other = tmp_path / "other"
    bob.json("mirror", project, str(other))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == content
    assert {path.name: path.read_bytes() for path in other.iterdir()} == content
    assert alice.json("verify", str(out)) == {"ok": True, "wrong": []}
    # An outdated mirror passes.
    alice.json("agent", "claim", "adr")
    assert bob.run("verify", str(out)).exit_code == 0
    # The incomplete line of an interrupted run is replaced.
    with (out / "ledger.jsonl").open("ab") as ledger:
        ledger.write(b'{"actor":"half')
    assert alice.json("mirror", project, str(out))["added"] == 1
    assert alice.run("verify", str(out)).exit_code == 0


def test_verify_detects_a_changed_mirror(alice: Cli, team: Team, tmp_path: Path) -> None:
    for _ in range(4):
        alice.json("agent", "claim", "adr")
    project = team.alice.project
    alice.json("mirror", project, str(tmp_path))
    ledger = tmp_path / "ledger.jsonl"
    content = ledger.read_bytes()
    lines = content.splitlines(keepends=True)
    for broken, message in (
        (b"".join(lines[:1] + lines[2:]), "not contiguous"),
        (b"".join([lines[1], lines[0], *lines[2:]]), "not contiguous"),
        (content.replace(b'"number":2', b'"number":7'), "line 2 differs"),
        (content[:-1], "line 4 is incomplete"),
        (content + lines[-1].replace(b'"id":4', b'"id":5'), "does not have"),
        (b"nonsense\n" + content, "not contiguous"),
    ):
        ledger.write_bytes(broken)
        result = alice.run("verify", str(tmp_path))
        assert (result.exit_code, message in result.stdout) == (ExitCode.FAILED, True), result.output
    ledger.write_bytes(content)
    (tmp_path / "state.md").write_text("mine")
    assert "state.md differs from the state of the bus" in alice.run("verify", str(tmp_path)).stdout
    assert alice.run("verify", str(tmp_path / "none")).exit_code == ExitCode.NOT_FOUND


def test_a_token_of_another_project_cannot_mirror(
    alice: Cli, served: tuple[Database, GatewayProcess], team: Team, tmp_path: Path
) -> None:
    with served[0].transaction() as conn:
        stranger = make_agent(conn, make_project(conn), "eve")
    eve = Cli(served[1].url, stranger.token)
    alice.json("agent", "claim", "adr")
    alice.json("mirror", team.alice.project, str(tmp_path))
    assert eve.run("mirror", team.alice.project, str(tmp_path)).exit_code == ExitCode.FAILED
    eve.json("agent", "claim", "adr")
    # The folder holds the mirror of another ledger.
    refused = eve.run("mirror", stranger.project, str(tmp_path))
    assert (refused.exit_code, "mirrors another project" in refused.stderr) == (ExitCode.FAILED, True)


def test_the_mirror_of_a_growing_ledger_is_contiguous(alice: Cli, bob: Cli, team: Team, tmp_path: Path) -> None:
    stop = threading.Event()
    barrier = threading.Barrier(2)

    def write() -> None:
        with Client(str(bob.env["LLM_BUS_URL"]), str(bob.env["LLM_BUS_TOKEN"])) as bus:
            barrier.wait()
            while not stop.is_set():
                bus.call("claim", sequence="busy")

    writer = threading.Thread(target=write)
    writer.start()
    barrier.wait()
    try:
        for _ in range(10):
            alice.json("mirror", team.alice.project, str(tmp_path))
    finally:
        stop.set()
        writer.join()
    alice.json("mirror", team.alice.project, str(tmp_path))
    assert alice.json("verify", str(tmp_path))["ok"] is True
