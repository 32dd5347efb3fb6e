"""`llm-bus serve`: web and gateway on one port behave like the separate processes."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
from pydantic import SecretStr

from bus.auth import login_links
from bus.billing import metering
from bus.client_setup import login_link_url
from bus.db import Database
from bus.operations import jobs
from bus.operations.metrics import MetricsEndpoint
from tests import process_pool
from tests.concurrency import wait_until
from tests.factories import make_agent, make_owner, make_project
from tests.metrics_scrape import METRICS_TOKEN, parse
from tests.servers import application_url, free_port
from workers import metrics_server

_START_SECONDS = 60


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url, pool_size=2)) as database:
        yield database


class _Process(NamedTuple):
    url: str
    popen: "subprocess.Popen[bytes]"


def _responds(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/healthz", timeout=2).status_code == 200
    except httpx2.TransportError:
        return False


@contextmanager
def _running(module: str, database_url: str, redis_url: str, log: Path, **more: str) -> Iterator[_Process]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    clean_env = {name: value for name, value in os.environ.items() if name not in ("MCP_URL", "HOST")}
    database = application_url(database_url)
    env = {**clean_env, "DATABASE_URL": database, "REDIS_URL": redis_url, "PORT": str(port), "PUBLIC_URL": url, **more}
    env["METRICS_TOKEN"] = METRICS_TOKEN
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", *module.split()], env=env, stdout=output, stderr=output)
    try:
        wait_until(lambda: process.poll() is not None or _responds(url), _START_SECONDS, describe=log.read_text)
        assert process.poll() is None, log.read_text()
        yield _Process(url, process)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()


@pytest.fixture
def base(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[str]:
    with _running("cli serve", database_url, redis_url, tmp_path / "log") as process:
        yield process.url


def _call(client: httpx2.Client, base: str, token: str, tool: str, arguments: dict[str, object]) -> httpx2.Response:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
    return client.post(f"{base}/mcp", json=body, headers=headers)


def _result(response: httpx2.Response) -> dict[str, object]:
    text = response.text if response.text.startswith("{") else response.text.partition("data: ")[2]
    content: dict[str, object] = json.loads(text)["result"]["structuredContent"]
    return content


def test_web_and_gateway_share_one_port(base: str, db: Database) -> None:
    with db.transaction() as conn:
        owner = make_owner(conn, "ada")
        agent = make_agent(conn, make_project(conn, "apollo", owner), "alice")
    with httpx2.Client(timeout=120) as client:
        for number in (1, 2, 3):
            # Alternating over one connection, so that each kind of request follows the other.
            assert "LLM Bus" in client.get(f"{base}/").text
            assert _result(_call(client, base, agent.token, "claim", {"sequence": "adr"}))["number"] == number
        # A client that has the address alone finds its way.
        (challenge,) = client.post(f"{base}/mcp").headers.get_list("WWW-Authenticate")
        metadata = client.get(challenge.split('"')[1]).json()
        assert metadata["resource"] == f"{base}/mcp"
        (issuer,) = metadata["authorization_servers"]
        assert client.get(f"{issuer}/.well-known/oauth-authorization-server").json()["issuer"] == base
        with db.connection() as conn:
            link = login_link_url(base, login_links.create_login_link(conn, owner, actor="cli"))
        page = client.get(link)
        token = page.text.partition('name="csrf_token" value="')[2].partition('"')[0]
        assert client.post(link, data={"csrf_token": token}).headers["Location"] == "/admin/"
        assert "apollo" in client.get(f"{base}/admin/").text
        assert _call(client, base, "lbus_wrong", "claim", {"sequence": "adr"}).status_code == 401
        assert client.get(f"{base}/mcp").status_code == 401
        assert client.get(f"{base}/mcp/").headers["Content-Type"].startswith("application/json")
        assert client.get(f"{base}/mcpx").status_code == 404
        assert client.get(f"{base}/readyz").json()["ok"] is True
        assert client.post(f"{base}/join", json={}).status_code == 400
        assert client.post(f"{base}/join", content=b"x" * 2_000_000).status_code == 413
        assert client.head(f"{base}/static/bus.css").status_code == 200
        # Long polls and what the SDK answers, as in the gateway.
        assert _result(_call(client, base, agent.token, "wait_for", {"timeout_seconds": 1})) == {"timed_out": True}
        listing = client.post(
            f"{base}/mcp",
            json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
            headers={
                "Authorization": f"Bearer {agent.token}",
                "Accept": "application/json, text/event-stream",
                "MCP-Protocol-Version": "2025-11-25",
            },
        )
        assert "whats_new" in listing.text


_NAME = re.compile(r"\b(?:llm_bus|process)_[a-z0-9_]+")
_DOCS = Path(__file__).parents[2] / "docs" / "observability"


def test_dashboard_and_alerts_use_only_existing_metrics(base: str, db: Database) -> None:
    """One scrape contains the metrics of the gateway, the web and the service."""
    with db.transaction() as conn:
        metering.set_metering_enabled(conn, True)
        agent = make_agent(conn)
        jobs.finish_run(conn, jobs.begin_run(conn, "reconcile"), "alarm", {})
    with httpx2.Client(timeout=120) as client:
        _call(client, base, agent.token, "claim", {"sequence": "adr"})
        client.get(f"{base}/nowhere")
        assert client.get(f"{base}/metrics").status_code == 401
        text = client.get(f"{base}/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"}).text
    metrics = parse(text)
    assert metrics.value("llm_bus_tool_calls_total", tool="claim", outcome="ok") == 1
    assert metrics.value("llm_bus_web_requests_total", route="none", status="404") == 1
    assert metrics.group_by("llm_bus_db_connections_max", "door") == {("gateway",): 4, ("web",): 4}
    assert metrics.value("llm_bus_job_last_run_outcome", job="reconcile", outcome="alarm") == 1
    for name in ("postgres_up", "schema_current", "redis_up", "metering_running"):
        assert metrics.value(f"llm_bus_{name}") == 1
    # The metrics of a worker, from the code that serves them.
    worker = MetricsEndpoint("worker", SecretStr(METRICS_TOKEN))
    metrics_server.add_job_metrics(worker, db, {})
    exported = _sample_names(text) | _sample_names(worker.render().decode())
    dashboard = json.loads((_DOCS / "dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    expressions += [line for line in (_DOCS / "alerts.yml").read_text().splitlines() if "llm_bus_" in line]
    used = {name for expression in expressions for name in _NAME.findall(expression)}
    assert len(used) > 30
    assert used - exported == set()
    # A metric that no dashboard or alert uses is not worth its place in a scrape.
    families = {name for name in exported if name.startswith("llm_bus_") and not name.endswith(("_bucket", "_sum"))}
    unused = {
        family
        for family in families
        if not any(used_name.startswith(family.removesuffix("_count")) for used_name in used)
    }
    assert unused == {"llm_bus_job_interval_seconds"}


def _sample_names(text: str) -> set[str]:
    """Return the names of all possible samples, including those without a value yet."""
    names = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return names


def test_an_invalid_setting_is_one_line(database_url: str) -> None:
    env = {**os.environ, "DATABASE_URL": database_url, "SIGN_UP": "maybe"}
    command = [str(Path(sys.executable).with_name("llm-bus")), "serve"]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=150, check=False)
    assert result.returncode == 1
    assert result.stderr.strip().count("\n") == 0
    assert "SIGN_UP must be open or closed; it is 'maybe'." in result.stderr


@pytest.mark.parametrize(
    ("command", "prefix", "own_names"),
    [
        pytest.param(["cli", "serve"], "llm-bus:", {"SIGN_UP"}, marks=pytest.mark.exhaustive),
        (["mcp_gateway"], "llm-bus gateway:", set()),
        (["webapp"], "llm-bus web:", {"SIGN_UP"}),
        (["workers"], "llm-bus worker:", {"REDIS_URL", "JOB_EVERY"}),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_a_start_names_every_wrong_setting_and_no_secret(
    command: list[str], prefix: str, own_names: set[str], tmp_path: Path
) -> None:
    env = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")} | {
        "DATABASE_URL": "mysql://bus:hunter2@db/bus",
        "PORT": "http",
        "METRICS_TOKEN": "hunter2",
        "SIGN_UP": "maybe",
        "JOB_EVERY": "nothing=5",
        "SENTRY_DSN": "hunter2",
    }
    with (tmp_path / "output").open("w+b") as output:
        process = (
            process_pool.start_module(*command, env=env, output=output)
            if command[0] in ("mcp_gateway", "workers")
            else subprocess.Popen([sys.executable, "-m", *command], env=env, stdout=output, stderr=output)
        )
        assert process.wait(150) == 1
        output.seek(0)
        text = output.read().decode()
    names = {"DATABASE_URL", "PORT", "METRICS_TOKEN", "SENTRY_DSN"} | own_names
    first, *problems = text.strip().splitlines()
    assert first == f"{prefix} {len(names)} settings are wrong:"
    assert {problem.removeprefix("- ").partition(" ")[0] for problem in problems} == names
    assert "hunter2" not in text


@pytest.mark.parametrize("module", ["cli serve", pytest.param("webapp", marks=pytest.mark.exhaustive)])
def test_a_draining_process_answers_while_its_health_checks_fail(
    module: str, db: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with db.transaction() as conn:
        agent = make_agent(conn, make_project(conn))
    with (
        # Ended by the second signal.
        _running(module, database_url, redis_url, tmp_path / "log", DRAIN_SECONDS="300") as process,
        httpx2.Client(base_url=process.url, timeout=60) as client,
    ):
        assert "connection" not in client.get("/").headers
        process.popen.send_signal(signal.SIGTERM)
        wait_until(lambda: client.get("/healthz").status_code == 503)
        assert client.get("/readyz").status_code == 503
        page = client.get("/")
        assert (page.status_code, page.headers["connection"]) == (200, "close")
        if module == "cli serve":
            answer = _call(client, process.url, agent.token, "whoami", {})
            assert answer.status_code == 200
            assert "close" in answer.headers["connection"]
