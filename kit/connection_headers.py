"""The headers of a client's MCP connection: the session, and the token that is saved inside .git.

Claude Code and Codex run `kit headers CLIENT` when they connect, in an environment without secrets; the plugin of
OpenCode does it for its configuration. The token goes only to the origin that a person confirmed, whatever the
repository's configuration of the client says.
"""

from __future__ import annotations

import os
from pathlib import Path

from kit import client_files, config, connection, repo, session_key, text_files, toml_reader
from kit.connection import AddressError
from kit.repo import NoRepositoryError, Repo
from kit.token_format import is_well_formed

URL_VARIABLE = "CLAUDE_CODE_MCP_SERVER_URL"


def find_headers(client: str, url: str | None = None) -> dict[str, str]:
    """Return the headers for a connection of a client.

    Args:
        url: the address of the connection; None where the client or its configuration says it.
    """
    headers = {}
    if client == "claude":
        key = session_key.find_process_key()
        if key is not None:
            headers["X-Bus-Session"] = key
    try:
        work_tree = repo.get_repo(Path.cwd())
        address = url or (_read_codex_url(work_tree) if client == "codex" else os.environ.get(URL_VARIABLE))
        token = _find_saved_token(work_tree, client)
        if address and token and _is_confirmed(work_tree, address):
            headers["Authorization"] = f"Bearer {token}"
    except (NoRepositoryError, OSError, ValueError):
        pass
    return headers


def _find_saved_token(work_tree: Repo, client: str) -> str | None:
    """Return the saved token; None if there is none, or if the client sends that of the environment."""
    confirmed = connection.find_connection(work_tree)
    if client == "opencode" and confirmed is not None and os.environ.get(confirmed.token_variable):
        return None
    for path in config.list_token_files(work_tree):
        if path.exists():
            token = path.read_text("ascii", "replace").strip()
            return token if is_well_formed(token) else None
    return None


def _is_confirmed(work_tree: Repo, address: str) -> bool:
    confirmed = connection.find_connection(work_tree)
    if confirmed is None:
        return False
    try:
        connection.check_encryption(address, allow_http=confirmed.allow_http)
        return connection.parse_origin(address) == connection.parse_origin(confirmed.endpoint)
    except AddressError:
        return False


def _read_codex_url(work_tree: Repo) -> str | None:
    """Read the address of the server in the repository's configuration of Codex, which is the one that runs this."""
    path = work_tree.top / ".codex" / "config.toml"
    server = toml_reader.parse(text_files.decode(path.read_bytes())).find(client_files.TOML_TABLE)
    url = server.get("url") if isinstance(server, dict) else None
    return url if isinstance(url, str) else None
