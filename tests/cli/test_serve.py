"""`llm-bus serve`: people and agents at one port, each served as by the process that is theirs alone."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from bus import login_links
from bus.db import Database
from tests.factories import make_agent, make_owner, make_project
from tests.servers import free_port

_START_SECONDS = 60


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url, size=2)) as database:
        yield database


@pytest.fixture
def base(database_url: str, tmp_path: Path) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    clean = {name: value for name, value in os.environ.items() if name not in ("MCP_URL", "REDIS_URL", "HOST")}
    env = {**clean, "DATABASE_URL": database_url, "PORT": str(port), "PUBLIC_URL": url}
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("llm-bus")), "serve"], env=env, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            assert process.poll() is None, log.read_text()
            try:
                assert httpx2.get(f"{url}/healthz", timeout=2).status_code == 200
                break
            except httpx2.TransportError:
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()


def _call(client: httpx2.Client, base: str, token: str, tool: str, arguments: dict[str, object]) -> httpx2.Response:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
    return client.post(f"{base}/mcp", json=body, headers=headers)


def _result(answer: httpx2.Response) -> dict[str, object]:
    text = answer.text if answer.text.startswith("{") else answer.text.partition("data: ")[2]
    found: dict[str, object] = json.loads(text)["result"]["structuredContent"]
    return found


def test_people_and_agents_meet_at_one_port(base: str, db: Database) -> None:
    with db.write() as conn:
        owner = make_owner(conn, "ada")
        agent = make_agent(conn, make_project(conn, "apollo", owner), "alice")
    with httpx2.Client(timeout=30) as client:
        for number in (1, 2, 3):
            # In turns over one connection, so that each kind of request follows the other.
            assert "LLM Bus" in client.get(f"{base}/").text
            assert _result(_call(client, base, agent.token, "claim", {"sequence": "adr"}))["number"] == number
        with db.call() as conn:
            link = login_links.address(base, login_links.create(conn, owner))
        page = client.get(link)
        token = page.text.partition('name="csrf_token" value="')[2].partition('"')[0]
        assert client.post(link, data={"csrf_token": token}).headers["Location"] == "/admin/"
        assert "apollo" in client.get(f"{base}/admin/").text
        assert _call(client, base, "lbus_wrong", "claim", {"sequence": "adr"}).status_code == 401
        assert client.get(f"{base}/mcp").status_code == 405
        assert client.get(f"{base}/mcp/").headers["Content-Type"].startswith("application/json")
        assert client.get(f"{base}/mcpx").status_code == 404
        assert client.get(f"{base}/readyz").json()["ok"] is True
        assert client.post(f"{base}/join", json={}).status_code == 400
        assert client.post(f"{base}/join", content=b"x" * 2_000_000).status_code == 413
        assert client.head(f"{base}/static/bus.css").status_code == 200


def test_what_waits_is_told_by_what_a_person_does(base: str, db: Database) -> None:
    """The SDK's way, and waiting, work behind this listener as behind the gateway's own."""
    with db.write() as conn:
        agent = make_agent(conn)
    with httpx2.Client(timeout=30) as client:
        assert _result(_call(client, base, agent.token, "wait_for", {"timeout_seconds": 1})) == {"timed_out": True}
        listed = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        headers = {
            "Authorization": f"Bearer {agent.token}",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2025-11-25",
        }
        answer = client.post(f"{base}/mcp", json=listed, headers=headers)
        assert "whats_new" in answer.text


def test_a_setting_that_makes_no_sense_is_one_line(database_url: str) -> None:
    env = {**os.environ, "DATABASE_URL": database_url, "SIGN_UP": "maybe"}
    command = [str(Path(sys.executable).with_name("llm-bus")), "serve"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "SIGN_UP" in done.stderr
    assert "Traceback" not in done.stderr
