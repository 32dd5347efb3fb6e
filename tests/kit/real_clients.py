"""`make clients`: the command lines of real clients read what the installer wrote, and reach a gateway with it.

npm installs them into a temporary folder, or LLM_BUS_CLIENTS names one that has them. None needs an account: each only
lists its MCP servers, which makes it read its configuration and, but for Codex, connect.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bus.db import Database
from tests import servers
from tests.kit import git_repo
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.processes import running_gateways

PACKAGES = ("@anthropic-ai/claude-code", "@openai/codex", "@google/gemini-cli", "opencode-ai")
CLIENTS = ("claude", "codex", "gemini", "opencode")
# What each says of a server that it has reached, or, of Codex, that it has read.
CONNECTED_PATTERNS = {
    "claude": r"llm-bus: \S+ \(HTTP\) - .*Connected",
    "codex": r"llm-bus +\S+ +LLM_BUS_TOKEN +enabled +Bearer token",
    "gemini": r"✓ llm-bus: \S+ \(http\) - Connected",
    "opencode": r"✓ llm-bus .*connected",
}
_ANSI_ESCAPE_PATTERN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@contextmanager
def installed_clients() -> Iterator[Path]:
    """The folder of the clients' programs."""
    if named := os.environ.get("LLM_BUS_CLIENTS"):
        yield Path(named) / "node_modules" / ".bin"
        return
    with tempfile.TemporaryDirectory(prefix="clients-") as folder:
        subprocess.run(["npm", "init", "-y"], cwd=folder, check=True, capture_output=True)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", *PACKAGES], cwd=folder, check=True)
        yield Path(folder) / "node_modules" / ".bin"


def trust_repository(repo: git_repo.GitRepo) -> None:
    """What a person says when a client asks whether this folder is to be trusted."""
    home = Path(repo.env["HOME"])
    top = str(repo.root)
    settings = repo.root / ".claude" / "settings.local.json"
    settings.write_text(json.dumps({"enabledMcpjsonServers": ["llm-bus"], "enableAllProjectMcpServers": True}))
    accepted = {"hasTrustDialogAccepted": True, "enabledMcpjsonServers": ["llm-bus"]}
    (home / ".claude.json").write_text(json.dumps({"hasCompletedOnboarding": True, "projects": {top: accepted}}))
    (home / ".codex").mkdir()
    (home / ".codex" / "config.toml").write_text(f'[projects.{json.dumps(top)}]\ntrust_level = "trusted"\n')
    (home / ".gemini").mkdir()
    (home / ".gemini" / "trustedFolders.json").write_text(json.dumps({top: "TRUST_FOLDER"}))


def check_clients(repo: git_repo.GitRepo, programs: Path, team: Team) -> list[str]:
    """Ask each client; returns those that did not see the bus."""
    failed = []
    path = os.pathsep.join([str(programs), repo.env["PATH"], os.environ["PATH"]])
    for client in CLIENTS:
        version = repo.run(client, "--version", PATH=path).stdout.strip().splitlines()
        done = repo.run(client, "mcp", "list", PATH=path, LLM_BUS_TOKEN=team.alice.token)
        said = _ANSI_ESCAPE_PATTERN.sub("", done.stdout + done.stderr)
        good = re.search(CONNECTED_PATTERNS[client], said) is not None
        print(f"{'ok  ' if good else 'BAD '} {client} {version[-1] if version else '?'}")
        if not good:
            print(said)
            failed.append(client)
    return failed


def main() -> int:
    """Run them all. Returns 1 if one did not see the bus."""
    started = servers.Servers()
    try:
        with (
            servers.cloned_database() as url,
            running_gateways(url) as (gateway,),
            installed_clients() as programs,
            tempfile.TemporaryDirectory(prefix="kit-") as folder,
        ):
            database = Database(url, pool_size=2)
            team = make_team(database)
            database.close()
            repo = git_repo.make_repo(Path(folder), sys.executable)
            repo.install(gateway.url, "--client", ",".join(CLIENTS))
            trust_repository(repo)
            return 1 if check_clients(repo, programs, team) else 0
    finally:
        started.stop()


if __name__ == "__main__":
    sys.exit(main())
