"""`llm-bus up` from its first start to its end, and after ends that nobody asked for."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx2
import psutil
import psycopg
import pytest
import redis

from bus.config.redaction import MASK
from bus.db import Database
from bus.operations import process_registry
from tests.cli.bus_process import (
    LLM_BUS_COMMAND,
    BusProcess,
    clean_environ,
    reserve_ports,
    run_command,
    running_bus,
    temporary_data_folder,
    wait_for_exit,
)


def _names(url: str) -> list[str]:
    with psycopg.connect(url) as conn:
        return [name for (name,) in conn.execute("SELECT label FROM participant ORDER BY label").fetchall()]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url.removesuffix("/mcp") + "/healthz", timeout=2) as response:
            return bool(json.load(response)["ok"])
    except OSError:
        return False


def _eventually(holds: Callable[[], bool], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_one_line_says_where_everything_is(bus: BusProcess) -> None:
    said = bus.startup_info
    assert set(said) == {"gateway_url", "web_url", "database_url", "redis_url", "data", "agents"}
    assert said["gateway_url"].startswith("http://127.0.0.1:")
    assert said["gateway_url"].endswith("/mcp")
    assert _answers(said["gateway_url"])
    with psycopg.connect(said["database_url"]) as conn:
        assert conn.info.server_version >= 160_000
        assert conn.execute("SHOW synchronous_commit").fetchone() == ("on",)
    with redis.Redis.from_url(said["redis_url"]) as client:
        assert client.ping()


def test_the_first_start_hands_out_tokens_that_work(bus: BusProcess) -> None:
    agents = bus.startup_info["agents"]
    assert [(agent["project"], agent["name"]) for agent in agents] == [("demo", "alice"), ("demo", "bob")]
    checked = run_command(
        "token", "check", "--json", LLM_BUS_DATA=bus.startup_info["data"], LLM_BUS_TOKEN=agents[0]["token"]
    )
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["actor"] == "owner/alice"


def test_a_second_up_names_the_addresses_and_exits_with_3(bus: BusProcess) -> None:
    second = run_command("up", "--data", bus.startup_info["data"])
    assert second.returncode == 3
    assert bus.startup_info["gateway_url"] in second.stderr
    assert _answers(bus.startup_info["gateway_url"])


def test_other_commands_find_the_running_bus(bus: BusProcess) -> None:
    added = run_command("agent", "add", "demo", "carol", "--json", "--data", bus.startup_info["data"])
    assert added.returncode == 0, added.stderr
    assert json.loads(added.stdout)["token"].startswith("lbus_")
    well = run_command("doctor", "--data", bus.startup_info["data"])
    assert well.returncode == 0, well.stdout
    assert "BAD" not in well.stdout


def test_every_process_reports_itself(bus: BusProcess) -> None:
    def reported() -> list[process_registry.Process]:
        with closing(Database(bus.startup_info["database_url"], pool_size=1)) as db, db.connection() as conn:
            return process_registry.list_processes(conn)

    _eventually(lambda: [one.kind for one in reported()] == ["beat", "gateway", "web", "worker"])
    for one in reported():
        assert psutil.pid_exists(one.pid)
        database = one.settings["DATABASE_URL"]
        assert not database.is_default
        assert MASK in database.value
        assert urlsplit(bus.startup_info["database_url"]).password not in json.dumps(
            [vars_of(one) for one in reported()]
        )
        assert one.metrics["memory_bytes"] > 1_000_000


def vars_of(one: process_registry.Process) -> dict[str, object]:
    return {"settings": {name: setting.value for name, setting in one.settings.items()}, "figures": one.metrics}


def test_secrets_are_readable_by_their_owner_only(bus: BusProcess) -> None:
    data = Path(bus.startup_info["data"])
    for secret in ("runtime.json", "postgres/password", "redis/password", "redis/valkey.conf"):
        assert (data / secret).stat().st_mode & 0o077 == 0, secret


def test_data_and_ports_outlive_an_end_a_kill_and_a_lost_postgres(data: Path) -> None:
    """One bus after the other in one folder, each ended in another way."""
    with running_bus(data) as first:
        run_command("agent", "add", "demo", "carol", "--data", str(data))
        assert first.stop(signal.SIGTERM) == 0
    assert wait_for_exit(first.children, 0) == []
    assert not (data / "runtime.json").exists()
    with running_bus(data) as second:
        assert _names(second.startup_info["database_url"]) == ["alice", "bob", "carol"]
        # No token is shown twice.
        assert second.startup_info == first.startup_info | {"agents": []}
        second.kill()
    listed = run_command("agent", "list", "demo", "--data", str(data))
    assert listed.returncode == 5
    assert "Nothing is running here" in listed.stderr
    with running_bus(data) as third:
        assert wait_for_exit(second.children, 0) == []
        assert _names(third.startup_info["database_url"]) == ["alice", "bob", "carol"]
        assert third.startup_info["gateway_url"] == first.startup_info["gateway_url"]
        # Stopped, so that it cannot start PostgreSQL again before it is killed itself.
        third.process.send_signal(signal.SIGSTOP)
        third.get_child("postgres", "-D").kill()
        third.kill()
    with running_bus(data) as fourth:
        assert _names(fourth.startup_info["database_url"]) == ["alice", "bob", "carol"]
        # Under nohup the bus ignores it, as it should.
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert fourth.stop(signal.SIGINT if ignored else signal.SIGHUP) == 0
    assert wait_for_exit(fourth.children, 0) == []


def test_servers_that_are_named_are_used_and_none_is_started(
    data: Path, empty_database_url: str, redis_url: str
) -> None:
    with running_bus(data, DATABASE_URL=empty_database_url, REDIS_URL=redis_url) as started:
        assert started.startup_info["database_url"] == empty_database_url
        assert started.startup_info["redis_url"] == redis_url
        assert [agent["name"] for agent in started.startup_info["agents"]] == ["alice", "bob"]
        assert not [child for child in started.children if child.name() in ("postgres", "valkey-server")]
    assert list((data / "postgres").iterdir()) == []
    assert list((data / "redis").iterdir()) == []


def test_what_dies_is_started_again(data: Path) -> None:
    with running_bus(data) as started:
        victims = [
            started.get_child("mcp_gateway"),
            started.get_child("postgres", "-D"),
            started.get_child("valkey-server"),
        ]
        for victim in victims:
            victim.kill()
        assert wait_for_exit(victims) == []
        _eventually(lambda: _answers(started.startup_info["gateway_url"]))
        # Each look takes a process of its own.
        time.sleep(2)
        _eventually(lambda: run_command("doctor", "--data", str(data)).returncode == 0)
        assert _names(started.startup_info["database_url"]) == ["alice", "bob"]


def test_a_process_that_cannot_start_is_named_and_nothing_stays(data: Path) -> None:
    before = {process.pid for process in psutil.process_iter()}
    failed = run_command("up", "--json", "--data", str(data), GATEWAY_THREADS="none")
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert "ended with code 1. Its log" in failed.stderr
    assert "GATEWAY_THREADS must be a whole number" in failed.stderr
    for process in psutil.process_iter():
        if process.pid not in before:
            assert str(data) not in " ".join(process.cmdline())


@pytest.mark.skipif(os.geteuid() != 0, reason="An ordinary user runs PostgreSQL as itself.")
def test_root_is_told_which_folder_keeps_postgres_out(data: Path) -> None:
    closed = data.parent / "closed"
    closed.mkdir(mode=0o700)
    refused = run_command("up", "--data", str(closed / "data"))
    assert refused.returncode == 1
    assert str(closed) in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert closed.stat().st_mode & 0o777 == 0o700


def test_the_screen_of_a_first_start_lets_its_owner_in(empty_database_url: str) -> None:
    """As a person starts it, where a database is named and the ports of last time are taken meanwhile.

    The link on the screen is one of a page that signs in, and works once.
    """
    with temporary_data_folder() as data:
        data.mkdir()
        reserve_ports(data)
        taken = json.loads((data / "ports.json").read_text())
        held = [socket.create_server(("127.0.0.1", port)) for port in taken.values()]
        process = subprocess.Popen(
            [LLM_BUS_COMMAND, "up", "--data", str(data)],
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environ({"DATABASE_URL": empty_database_url}),
        )
        try:
            assert process.stdout is not None
            lines = list(iter(process.stdout.readline, "Ctrl-C stops everything.\n"))
            link = next(line.split()[-1] for line in lines if line.split()[:2] == ["sign", "in"])
            assert any("login-link owner@localhost" in line for line in lines)
            assert not [port for port in taken.values() for line in lines if f":{port}/" in line]
            with httpx2.Client(timeout=30) as client:
                page = client.get(link)
                token = page.text.partition('name="csrf_token" value="')[2].partition('"')[0]
                assert client.post(link, data={"csrf_token": token}).headers["Location"] == "/admin/"
                assert "demo" in client.get(urljoin(link, "/admin/")).text
            names = [child.name() for child in psutil.Process(process.pid).children(recursive=True)]
            assert "valkey-server" in names
            assert "postgres" not in names
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
            for listener in held:
                listener.close()
        assert process.returncode == 0
