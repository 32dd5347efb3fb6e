"""A bus moves to another server: backup, a new cluster without its roles, restore, processes, an agent that goes on."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx2
import psycopg
import pytest

from bus.coordination import sequences
from bus.db import Database
from cli.embedded import account, postgres
from tests import servers
from tests.cli.test_commands import Cli
from tests.concurrency import wait_until
from tests.factories import Agent, make_agent, make_project
from tests.mcp_gateway.processes import running_gateways

_START_SECONDS = 60
_CLAIMS = 3


@contextmanager
def _running_cluster() -> Iterator[str]:
    """Run a new PostgreSQL cluster; yield the URL of its superuser."""
    folder = servers.make_traversable_folder()
    server = postgres.launch(
        folder / "postgres",
        port=servers.free_port(),
        log_path=folder / "log",
        account=account.choose_account(folder),
        ephemeral=True,
    )
    try:
        postgres.wait_until_ready(server)
        yield server.maintenance_url
    finally:
        postgres.stop(server)
        shutil.rmtree(folder, ignore_errors=True)


def _call(url: str, agent: Agent, tool: str, **arguments: object) -> Any:
    answer = httpx2.post(
        url,
        headers={"Authorization": f"Bearer {agent.token}", "Accept": "application/json"},
        json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text)["result"]["structuredContent"]


def _with(url: str, credentials: str, name: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{credentials}@{parts.netloc.rpartition('@')[2]}", path=f"/{name}"))


@pytest.mark.exhaustive
def test_an_agent_goes_on_at_a_bus_that_was_restored_on_another_server(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "bus.dump"
    with closing(Database(database_url, pool_size=1)) as db, db.transaction() as conn:
        project = make_project(conn)
        alice, bob = make_agent(conn, project), make_agent(conn, project)
        for _ in range(_CLAIMS):
            sequences.claim(conn, bob.ctx, "adr", note="a decision")
    with running_gateways(database_url) as (gateway,):
        digest = _call(gateway.url, alice, "whats_new")
        assert [event["id"] for event in digest["events"]][-1] >= _CLAIMS
        cursor = digest["cursor"]
        _call(gateway.url, bob, "post", subject="before", body="Text.", to_lane="web")
    Cli(database_url).json("backup", str(file))

    with _running_cluster() as superuser_url:
        with psycopg.connect(superuser_url, autocommit=True) as superuser:
            superuser.execute("CREATE ROLE bus_owner LOGIN CREATEROLE PASSWORD 'owner-of-the-new-server'")
            superuser.execute("CREATE DATABASE bus_moved OWNER bus_owner")
            roles = {name for (name,) in superuser.execute("SELECT rolname FROM pg_roles")}
        owner_url = _with(superuser_url, "bus_owner:owner-of-the-new-server", "bus_moved")
        # A role that only the restore creates, with another password than at the old server.
        application_url = _with(superuser_url, "bus_moved_app:password-of-the-new-server", "bus_moved")
        assert "bus_moved_app" not in roles
        env = {
            **os.environ,
            "DATABASE_URL": application_url,
            "MIGRATION_DATABASE_URL": owner_url,
            "REDIS_URL": redis_url,
        }

        def run(*words: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "cli", *words], env=env, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        assert "The integrity check found no difference." in run("restore", str(file))
        del env["MIGRATION_DATABASE_URL"]
        run("job", "run", "--due")
        run("job", "run", "reconcile")
        with running_gateways(application_url, REDIS_URL=redis_url) as (gateway,), _running_web(env) as web:
            ready = httpx2.get(gateway.url.removesuffix("/mcp") + "/readyz", timeout=60)
            assert (ready.status_code, httpx2.get(f"{web}/readyz", timeout=60).status_code) == (200, 200)
            digest = _call(gateway.url, alice, "whats_new")
            assert [event["id"] for event in digest["events"]] == [cursor + 1]
            assert _call(gateway.url, alice, "claim", sequence="adr", note="the next")["number"] == _CLAIMS + 1


@contextmanager
def _running_web(env: dict[str, str]) -> Iterator[str]:
    port = servers.free_port()
    process = subprocess.Popen([sys.executable, "-m", "webapp"], env={**env, "PORT": str(port)})
    url = f"http://127.0.0.1:{port}"

    def responds() -> bool:
        assert process.poll() is None
        try:
            return httpx2.get(f"{url}/healthz", timeout=5).status_code == 200
        except httpx2.TransportError:
            return False

    try:
        wait_until(responds, _START_SECONDS)
        yield url
    finally:
        process.terminate()
        process.wait(30)
