"""The steps of "Upgrade and roll back", from the previous release and back, while agents write."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2
import psutil
import psycopg
import pytest

from bus.db import schema_version
from tests import servers
from tests.child_processes import find_serving_children
from tests.cli.console_blocks import ROOT
from tests.concurrency import wait_until

# Until there are tags: a commit with the schema before.
_FIRST_BASE = "cd67b9e"
_CLIENTS = 3


def _git(*words: str, cwd: Path = ROOT) -> str:
    return subprocess.run(["git", *words], cwd=cwd, check=True, capture_output=True, text=True).stdout.strip()


def _find_base() -> str | None:
    """Return the commit of the newest release before this one, or None in a checkout without history."""
    tags = subprocess.run(
        ["git", "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", "HEAD^"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    base = tags or _FIRST_BASE
    known = subprocess.run(["git", "cat-file", "-e", f"{base}^{{commit}}"], cwd=ROOT, capture_output=True, check=False)
    return base if known.returncode == 0 else None


class _Installation:
    """A checkout whose version changes in place, as on a server, with this interpreter's packages."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder, self.variables = folder, variables
        self.gateway: subprocess.Popen[bytes] | None = None
        self.port = servers.free_port()

    def check_out(self, revision: str) -> None:
        _git("checkout", "--quiet", "--detach", revision, cwd=self.folder)
        for cache in self.folder.rglob("__pycache__"):
            for file in cache.iterdir():
                file.unlink()

    def run(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cli", *words],
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def start_gateway(self) -> None:
        env = {**self.variables, "PORT": str(self.port), "WEB_CONCURRENCY": "2"}
        self.gateway = subprocess.Popen([sys.executable, "-m", "mcp_gateway"], cwd=self.folder, env=env)
        wait_until(lambda: self.is_healthy() and len(self.serving()) == 2)

    def is_healthy(self) -> bool:
        try:
            return httpx2.get(f"http://127.0.0.1:{self.port}/healthz", timeout=5).status_code == 200
        except httpx2.TransportError:
            return False

    def serving(self) -> set[int]:
        assert self.gateway is not None
        return {child.pid for child in find_serving_children(self.gateway.pid)}

    def reload_gateway(self) -> None:
        """Replace the processes in turn, and wait until none of before is left."""
        assert self.gateway is not None
        before = self.serving()
        psutil.Process(self.gateway.pid).send_signal(signal.SIGHUP)
        wait_until(lambda: len(self.serving()) == 2 and not self.serving() & before)

    def stop_gateway(self) -> None:
        assert self.gateway is not None
        self.gateway.terminate()
        assert self.gateway.wait(60) == 0


def _claim(port: int, token: str) -> int:
    answer = httpx2.post(
        f"http://127.0.0.1:{port}/mcp",
        headers={"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"},
        json={"jsonrpc": "2.0", "id": 1, "method": "tools/call",
              "params": {"name": "claim", "arguments": {"sequence": "adr", "note": "docs/adr/x.md"}}},
        timeout=30,
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    return int(json.loads(answer.text.partition("data: ")[2] or answer.text)["result"]["structuredContent"]["number"])


@contextmanager
def _claiming(port: int, token: str, numbers: list[int]) -> Iterator[None]:
    """Claim without pause until the block ends; a call that fails ends it with an error."""
    has_ended = threading.Event()

    def claim() -> None:
        while not has_ended.is_set():
            numbers.append(_claim(port, token))

    with ThreadPoolExecutor(_CLIENTS) as pool:
        clients = [pool.submit(claim) for _ in range(_CLIENTS)]
        try:
            yield
            done = len(numbers)
            wait_until(lambda: len(numbers) > done + 20 or any(client.done() for client in clients))
        finally:
            has_ended.set()
        for client in clients:
            client.result()


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
@pytest.mark.skipif(_find_base() is None, reason="needs the history of the repository")
def test_an_upgrade_and_a_return_while_agents_write(empty_database_url: str, redis_url: str, tmp_path: Path) -> None:
    base, head = str(_find_base()), _git("rev-parse", "HEAD")
    folder = tmp_path / "llm-bus"
    _git("clone", "--quiet", "--no-checkout", str(ROOT), str(folder))
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "DATABASE_URL": servers.application_url(empty_database_url),
        "MIGRATION_DATABASE_URL": empty_database_url,
        "REDIS_URL": redis_url,
    }
    bus = _Installation(folder, variables)
    numbers: list[int] = []
    bus.check_out(base)
    bus.run("migrate")
    old_schema = _schema(empty_database_url)
    bus.run("owner", "add", "ann@example.org")
    bus.run("project", "add", "shop")
    token = next(word for word in bus.run("agent", "add", "shop", "api-1").split() if word.startswith("lbus_"))
    bus.start_gateway()
    try:
        with _claiming(bus.port, token, numbers):
            # The new version: its backup, its check of the settings, its migration, then its processes.
            bus.check_out(head)
            bus.run("backup", str(tmp_path / "before.dump"))
            bus.run("settings", "--changed")
            bus.run("migrate")
            assert _schema(empty_database_url) == schema_version.EXPECTED_SCHEMA_VERSION
            bus.reload_gateway()
        with _claiming(bus.port, token, numbers):
            # Back to the previous release without its schema.
            bus.check_out(base)
            bus.reload_gateway()
        bus.stop_gateway()
        # Back with the schema, with the new version installed and all processes stopped.
        if old_schema != schema_version.EXPECTED_SCHEMA_VERSION:
            bus.check_out(head)
            bus.run("migrate", "--to", old_schema)
            bus.check_out(base)
            bus.run("migrate")
            assert _schema(empty_database_url) == old_schema
        bus.start_gateway()
        numbers.append(_claim(bus.port, token))
    finally:
        bus.stop_gateway()
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    bus.run("job", "run", "reconcile")


def _schema(url: str) -> str:
    with closing(psycopg.connect(url)) as conn:
        return str(schema_version.find_schema_version(conn))
