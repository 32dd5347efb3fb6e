"""A repository with one client: its program on the PATH, a home folder of its own, and the stub as its model."""

import shlex
import subprocess
import sys
from pathlib import Path

from tests.clients.drivers.driver import Driver
from tests.clients.stub_model.server import StubModel
from tests.kit import git_repo
from tests.kit.git_repo import GitRepo

_CLIENT_TIMEOUT_SECONDS = 180
# Connections to other machines fail at once.
_NO_NETWORK = {
    **dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), "http://127.0.0.1:9"),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
}


def make_client_repo(driver: Driver, program: list[str], folder: Path, stub: StubModel) -> tuple[GitRepo, Path]:
    """Create a repository for a client, and return it with the client's launcher."""
    repo = git_repo.make_repo(folder, sys.executable)
    # Only this client is on the PATH, so the installer detects it.
    launcher = folder / "bin" / driver.name
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join(program)} "$@"\n')
    launcher.chmod(0o755)
    repo.extra_env = {**driver.configure(Path(repo.env["HOME"]), repo.root, stub.url), **_NO_NETWORK}
    return repo, launcher


def run_client(
    repo: GitRepo, launcher: Path, *arguments: str, cwd: Path | None = None, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run a client without a terminal, until it ends."""
    return subprocess.run(
        [str(launcher), *arguments],
        cwd=cwd or repo.root,
        env={**repo.env, **repo.extra_env, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_CLIENT_TIMEOUT_SECONDS,
        check=False,
    )
