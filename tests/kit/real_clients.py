"""`make clients`: real clients read the configuration of the installer and connect to a gateway with it.

npm installs them into a temporary folder, with a downloaded Node where the machine has none that is recent enough, or
LLM_BUS_CLIENTS names a folder that has them. None needs an account: each only lists its MCP servers, so it reads its
configuration and, except for Codex, connects.
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
from tests.node import Node, find_or_install_node

PACKAGES = ("@anthropic-ai/claude-code", "@openai/codex", "@google/gemini-cli", "opencode-ai")
CLIENTS = ("claude", "codex", "gemini", "opencode")
# The output of each client for a connected server; Codex only lists the configured server.
CONNECTED_PATTERNS = {
    "claude": r"llm-bus: \S+ \(HTTP\) - .*Connected",
    "codex": r"llm-bus +\S+ +LLM_BUS_TOKEN +enabled +Bearer token",
    "gemini": r"✓ llm-bus: \S+ \(http\) - Connected",
    "opencode": r"✓ llm-bus .*connected",
}
_ANSI_ESCAPE_PATTERN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@contextmanager
def installed_clients(node: Node) -> Iterator[Path]:
    """Yield the folder of the clients' programs."""
    if folder_name := os.environ.get("LLM_BUS_CLIENTS"):
        yield Path(folder_name) / "node_modules" / ".bin"
        return
    with tempfile.TemporaryDirectory(prefix="clients-") as folder:
        # Without a package.json npm would look for one in the folders above.
        Path(folder, "package.json").write_text("{}")
        command = [*node.npm, "install", "--no-audit", "--no-fund", *PACKAGES]
        subprocess.run(command, cwd=folder, env={**os.environ, "PATH": node.path}, check=True)
        yield Path(folder) / "node_modules" / ".bin"


def trust_repository(repo: git_repo.GitRepo) -> None:
    """Mark the repository as trusted for each client, as a user does when the client asks."""
    home = Path(repo.env["HOME"])
    root = str(repo.root)
    settings = repo.root / ".claude" / "settings.local.json"
    settings.write_text(json.dumps({"enabledMcpjsonServers": ["llm-bus"], "enableAllProjectMcpServers": True}))
    accepted = {"hasTrustDialogAccepted": True, "enabledMcpjsonServers": ["llm-bus"]}
    (home / ".claude.json").write_text(json.dumps({"hasCompletedOnboarding": True, "projects": {root: accepted}}))
    (home / ".codex").mkdir()
    (home / ".codex" / "config.toml").write_text(f'[projects.{json.dumps(root)}]\ntrust_level = "trusted"\n')
    (home / ".gemini").mkdir()
    (home / ".gemini" / "trustedFolders.json").write_text(json.dumps({root: "TRUST_FOLDER"}))


def check_clients(repo: git_repo.GitRepo, programs: Path, node: Node, team: Team) -> list[str]:
    """List the MCP servers of each client. Returns the clients that did not connect to the bus."""
    failed = []
    path = os.pathsep.join([str(programs), node.path, repo.env["PATH"]])
    for client in CLIENTS:
        version = repo.run(client, "--version", PATH=path).stdout.strip().splitlines()
        done = repo.run(client, "mcp", "list", PATH=path, LLM_BUS_TOKEN=team.alice.token)
        output = _ANSI_ESCAPE_PATTERN.sub("", done.stdout + done.stderr)
        is_connected = re.search(CONNECTED_PATTERNS[client], output) is not None
        print(f"{'ok  ' if is_connected else 'BAD '} {client} {version[-1] if version else '?'}")
        if not is_connected:
            print(output)
            failed.append(client)
    return failed


def main() -> int:
    """Check all clients. Returns 1 if one did not connect to the bus."""
    node = find_or_install_node()
    running_servers = servers.Servers()
    try:
        with (
            servers.cloned_database() as url,
            running_gateways(url) as (gateway,),
            installed_clients(node) as programs,
            tempfile.TemporaryDirectory(prefix="kit-") as folder,
        ):
            database = Database(url, pool_size=2)
            team = make_team(database)
            database.close()
            repo = git_repo.make_repo(Path(folder), sys.executable)
            repo.install(gateway.url, "--client", ",".join(CLIENTS))
            trust_repository(repo)
            return 1 if check_clients(repo, programs, node, team) else 0
    finally:
        running_servers.stop()


if __name__ == "__main__":
    sys.exit(main())
