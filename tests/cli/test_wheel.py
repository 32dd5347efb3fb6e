"""The wheel, installed into an empty environment with what a server installs, starts every process of the Procfile."""

import os
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bus.db import Database
from bus.operations import process_registry
from cli import procfile
from tests.cli.bus_process import temporary_data_folder
from tests.concurrency import wait_until
from tests.servers import free_port

_PROJECT_ROOT = Path(__file__).resolve().parents[2]
_UV = str(Path(sys.executable).parent / "uv")


def _run(*command: str, cwd: Path, **env: str) -> None:
    subprocess.run(command, cwd=cwd, env={**os.environ, **env}, check=True, capture_output=True)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of the environment."""
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=_PROJECT_ROOT)
    _run(sys.executable, "-m", "venv", "--without-pip", str(folder / "venv"), cwd=folder)
    (wheel,) = folder.glob("*.whl")
    for requirement in (("--require-hashes", "-r", str(_PROJECT_ROOT / "requirements.txt")), (str(wheel),)):
        _run(_UV, "pip", "install", "--quiet", "--no-deps", *requirement, cwd=folder, VIRTUAL_ENV=str(folder / "venv"))
    return folder / "venv" / "bin"


@pytest.fixture
def env(programs: Path, empty_database_url: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": f"{programs}{os.pathsep}/usr/bin:/bin",
        "HOME": str(tmp_path),
        "DATABASE_URL": empty_database_url,
        "REDIS_URL": redis_url,
    }


@pytest.fixture
def started(programs: Path, env: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    """The address of each process that has one, by name."""
    release, *processes = (_PROJECT_ROOT / "Procfile.split").read_text().splitlines()
    # Outside the checkout, so that only the wheel can be imported.
    subprocess.run(shlex.split(release.partition(":")[2]), env=env, cwd=tmp_path, check=True)
    running, addresses = [], {}
    try:
        for process in procfile.parse("\n".join(processes)):
            port = free_port()
            addresses[process.name] = f"http://127.0.0.1:{port}"
            running.append(
                subprocess.Popen(process.command, env={**env, "PORT": str(port), "HOST": "127.0.0.1"}, cwd=tmp_path)
            )
        yield addresses
    finally:
        for popen in running:
            popen.terminate()
        assert [popen.wait(60) for popen in running] == [0] * len(running)


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.mark.exhaustive
def test_every_process_of_the_procfile_starts(started: dict[str, str], env: dict[str, str]) -> None:
    for name in ("web", "gateway"):
        wait_until(lambda: _is_ready(started[name]))  # noqa: B023
    with closing(Database(env["DATABASE_URL"], pool_size=1)) as db, db.connection() as conn:
        wait_until(lambda: {process.kind for process in process_registry.list_processes(conn)} == set(started))


@pytest.mark.exhaustive
def test_up_says_how_to_get_the_embedded_servers(programs: Path) -> None:
    with temporary_data_folder() as data:
        refused = subprocess.run(
            [str(programs / "llm-bus"), "up", "--data", str(data)],
            env={"PATH": "/usr/bin:/bin", "HOME": str(data.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert refused.returncode == 1
    assert "Install llm-bus[embedded], or set" in refused.stderr
