"""`llm-bus up`: first start, restart after crashes, and shutdown."""

import itertools
import json
import os
import signal
import socket
import subprocess
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2
import psutil
import psycopg
import pytest
import redis

from bus.config.redaction import MASK
from bus.db import Database, application_role
from bus.operations import process_registry
from cli.embedded import postgres
from tests.child_processes import find_children, find_processes
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
from tests.concurrency import wait_until


def _agent_labels(url: str) -> list[str]:
    with psycopg.connect(url) as conn:
        return [name for (name,) in conn.execute("SELECT label FROM participant ORDER BY label").fetchall()]


def _responds(url: str) -> bool:
    try:
        with urllib.request.urlopen(url.removesuffix("/mcp") + "/healthz", timeout=2) as response:
            return bool(json.load(response)["ok"])
    except OSError:
        return False


def _servers_respond(info: dict[str, Any]) -> bool:
    try:
        psycopg.connect(info["database_url"], connect_timeout=2).close()
        with redis.Redis.from_url(info["redis_url"]) as client:
            return bool(client.ping())
    except (psycopg.OperationalError, redis.RedisError):
        return False


def test_up_prints_one_line_with_all_addresses(bus: BusProcess) -> None:
    info = bus.startup_info
    assert set(info) == {"gateway_url", "web_url", "database_url", "redis_url", "data", "agents"}
    assert info["gateway_url"].startswith("http://127.0.0.1:")
    assert info["gateway_url"].endswith("/mcp")
    assert _responds(info["gateway_url"])
    with psycopg.connect(info["database_url"]) as conn:
        assert conn.info.server_version >= 160_000
        assert conn.execute("SHOW synchronous_commit").fetchone() == ("on",)
    with redis.Redis.from_url(info["redis_url"]) as client:
        assert client.ping()


def test_the_first_start_prints_tokens_that_work(bus: BusProcess) -> None:
    agents = bus.startup_info["agents"]
    assert [(agent["project"], agent["name"]) for agent in agents] == [("demo", "alice"), ("demo", "bob")]
    checked = run_command(
        "token", "check", "--json", LLM_BUS_DATA=bus.startup_info["data"], LLM_BUS_TOKEN=agents[0]["token"]
    )
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["actor"] == "owner/alice"


def test_a_second_up_prints_the_addresses_and_exits_with_code_3(bus: BusProcess) -> None:
    second = run_command("up", "--data", bus.startup_info["data"])
    assert second.returncode == 3
    assert bus.startup_info["gateway_url"] in second.stderr
    assert _responds(bus.startup_info["gateway_url"])


def test_other_commands_find_the_running_bus(bus: BusProcess) -> None:
    added = run_command("agent", "add", "demo", "carol", "--json", "--data", bus.startup_info["data"])
    assert added.returncode == 0, added.stderr
    assert json.loads(added.stdout)["token"].startswith("lbus_")
    doctor = run_command("doctor", "--data", bus.startup_info["data"])
    assert doctor.returncode == 0, doctor.stdout
    assert "BAD" not in doctor.stdout


def test_every_process_is_registered_with_masked_settings(bus: BusProcess) -> None:
    def registered() -> list[process_registry.Process]:
        with closing(Database(bus.startup_info["database_url"], pool_size=1)) as db, db.connection() as conn:
            # Another test may have killed some, whose last reports are still there.
            return [process for process in process_registry.list_processes(conn) if psutil.pid_exists(process.pid)]

    wait_until(lambda: [process.kind for process in registered()] == ["beat", "gateway", "web", "worker"])
    password = urlsplit(bus.startup_info["database_url"]).password
    for process in registered():
        assert not process.settings["DATABASE_URL"].is_default
        assert MASK in process.settings["DATABASE_URL"].value
        settings = {name: setting.value for name, setting in process.settings.items()}
        assert password not in json.dumps([settings, process.metrics])
        assert process.metrics["memory_bytes"] > 1_000_000


def test_every_process_connects_as_the_role_that_cannot_change_the_schema(bus: BusProcess) -> None:
    with psycopg.connect(bus.startup_info["database_url"], autocommit=True) as conn:

        def roles_of_backends() -> list[tuple[str, ...]]:
            return conn.execute(
                "SELECT application_name FROM pg_stat_activity"
                " WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
            ).fetchall()

        expected = {"llm-bus gateway", "llm-bus web", "llm-bus worker"}
        wait_until(lambda: {name for (name,) in roles_of_backends()} >= expected)
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename <> current_user"
        assert conn.execute(others).fetchone() == (0,)
        report = application_role.inspect(conn)
    assert (report.name, report.owns_schema, report.excesses) == (postgres.APPLICATION_ROLE, False, ())


def test_secrets_are_readable_by_their_owner_only(bus: BusProcess) -> None:
    data = Path(bus.startup_info["data"])
    for secret in (
        "runtime.json",
        "postgres/password",
        "postgres/application-password",
        "redis/password",
        "redis/valkey.conf",
    ):
        assert (data / secret).stat().st_mode & 0o077 == 0, secret


@pytest.mark.slow
def test_data_and_ports_survive_a_kill_and_a_lost_postgres(data: Path) -> None:
    """Two buses in one folder, one after the other, each ended in another way.

    That a start stops a PostgreSQL whose parent was killed is tested in embedded/test_postgres.py.
    """
    with running_bus(data) as first:
        run_command("agent", "add", "demo", "carol", "--data", str(data))
        # Paused, so that it cannot restart PostgreSQL before it is killed itself.
        first.process.send_signal(signal.SIGSTOP)
        first.get_child("postgres", "-D").kill()
        first.kill()
    listed = run_command("agent", "list", "demo", "--data", str(data))
    assert listed.returncode == 5
    assert "No bus is running here" in listed.stderr
    with running_bus(data) as second:
        assert wait_for_exit(first.children, 0) == []
        assert _agent_labels(second.startup_info["database_url"]) == ["alice", "bob", "carol"]
        # Tokens are shown only once.
        assert second.startup_info == first.startup_info | {"agents": []}
        # Under nohup the bus ignores SIGHUP.
        is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert second.stop(signal.SIGINT if is_ignored else signal.SIGHUP) == 0
    assert wait_for_exit(second.children, 0) == []
    assert not (data / "runtime.json").exists()


@pytest.mark.exhaustive
def test_data_survive_a_shutdown(data: Path) -> None:
    with running_bus(data) as first:
        run_command("agent", "add", "demo", "carol", "--data", str(data))
        assert first.stop(signal.SIGTERM) == 0
    assert wait_for_exit(first.children, 0) == []
    with running_bus(data) as second:
        assert _agent_labels(second.startup_info["database_url"]) == ["alice", "bob", "carol"]
        assert second.startup_info == first.startup_info | {"agents": []}


def test_configured_servers_are_used_and_none_is_started(data: Path, empty_database_url: str, redis_url: str) -> None:
    with running_bus(data, DATABASE_URL=empty_database_url, REDIS_URL=redis_url) as started:
        assert started.startup_info["database_url"] == empty_database_url
        assert started.startup_info["redis_url"] == redis_url
        assert [agent["name"] for agent in started.startup_info["agents"]] == ["alice", "bob"]
        assert not find_processes(started.children, lambda child: child.name() in ("postgres", "valkey-server"))
    assert list((data / "postgres").iterdir()) == []
    assert list((data / "redis").iterdir()) == []


def test_processes_and_servers_that_die_are_restarted(bus: BusProcess) -> None:
    info = bus.startup_info
    agents = _agent_labels(info["database_url"])
    victims = [bus.get_child("mcp_gateway"), bus.get_child("postgres", "-D"), bus.get_child("valkey-server")]
    for victim in victims:
        victim.kill()
    assert wait_for_exit(victims) == []
    wait_until(lambda: _servers_respond(info))
    wait_until(lambda: _responds(info["gateway_url"]))
    wait_until(lambda: run_command("doctor", "--data", info["data"]).returncode == 0)
    assert _agent_labels(info["database_url"]) == agents


def test_a_process_that_cannot_start_is_named_and_everything_stops(data: Path) -> None:
    before = {process.pid for process in psutil.process_iter()}
    failed = run_command("up", "--json", "--data", str(data), GATEWAY_THREADS="none")
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert "ended with code 1. Its log" in failed.stderr
    assert "GATEWAY_THREADS must be a whole number" in failed.stderr
    for process in psutil.process_iter(["cmdline"]):
        if process.pid not in before:
            # None of a process that has ended meanwhile.
            assert str(data) not in " ".join(process.info["cmdline"] or [])


@pytest.mark.skipif(os.geteuid() != 0, reason="An ordinary user runs PostgreSQL as itself.")
def test_the_error_for_root_names_the_folder_that_postgres_cannot_enter(data: Path) -> None:
    closed = data.parent / "closed"
    closed.mkdir(mode=0o700)
    refused = run_command("up", "--data", str(closed / "data"))
    assert refused.returncode == 1
    assert str(closed) in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert closed.stat().st_mode & 0o777 == 0o700


def test_the_banner_of_a_first_start_signs_the_owner_in(empty_database_url: str) -> None:
    """The start uses a configured database, and all stored ports are taken."""
    with temporary_data_folder() as data:
        data.mkdir()
        reserve_ports(data)
        taken_ports = json.loads((data / "ports.json").read_text())
        listeners = [socket.create_server(("127.0.0.1", port)) for port in taken_ports.values()]
        process = subprocess.Popen(
            [LLM_BUS_COMMAND, "up", "--data", str(data)],
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environ({"DATABASE_URL": empty_database_url}),
        )
        try:
            assert process.stdout is not None
            lines = list(itertools.takewhile(lambda line: line != "Press Ctrl-C to stop.\n", process.stdout))
            link = next(line.split()[-1] for line in lines if line.split()[:2] == ["sign", "in"])
            assert any("login-link owner@localhost" in line for line in lines)
            # The token is in the environment, and not among the arguments of a program.
            assert all("lbus_" not in line for line in lines if " mcp add " in line)
            assert any(line.startswith("  export LLM_BUS_TOKEN=lbus_") for line in lines)
            assert not [port for port in taken_ports.values() for line in lines if f":{port}/" in line]
            with httpx2.Client(timeout=120) as client:
                page = client.get(link)
                token = page.text.partition('name="csrf_token" value="')[2].partition('"')[0]
                assert client.post(link, data={"csrf_token": token}).headers["Location"] == "/admin/"
                assert "demo" in client.get(urljoin(link, "/admin/")).text
            bus = psutil.Process(process.pid)
            assert find_children(bus, lambda child: child.name() == "valkey-server", recursive=True)
            assert not find_children(bus, lambda child: child.name() == "postgres", recursive=True)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=150)
            for listener in listeners:
                listener.close()
        assert process.returncode == 0
