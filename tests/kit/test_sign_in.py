"""Clients that sign in: the installer writes the address alone, and switches between that and a token."""

import json
import tomllib
from pathlib import Path

from bus.rules.token_format import generate_token
from kit.clients import CLIENTS, WINDSURF_FILE
from tests.kit.git_repo import GitRepo

URL = "https://bus.example.org/mcp"


def _read_servers(plain: GitRepo) -> dict[str, dict[str, object]]:
    """The entry of each client by its name."""
    root, home = plain.root, Path(plain.env["HOME"])
    places = {
        "claude": (root / ".mcp.json", "mcpServers"),
        "gemini": (root / ".gemini/settings.json", "mcpServers"),
        "cursor": (root / ".cursor/mcp.json", "mcpServers"),
        "vscode": (root / ".vscode/mcp.json", "servers"),
        "opencode": (root / "opencode.json", "mcp"),
        "windsurf": (home / WINDSURF_FILE, "mcpServers"),
    }
    servers = {name: json.loads(path.read_text())[key]["llm-bus"] for name, (path, key) in places.items()}
    servers["codex"] = tomllib.loads((root / ".codex/config.toml").read_text())["mcp_servers"]["llm-bus"]
    assert set(servers) == {client.name for client in CLIENTS}
    return servers


def _assert_address_alone(plain: GitRepo) -> None:
    for name, server in _read_servers(plain).items():
        assert URL in server.values(), name
        assert not {"headers", "oauth", "bearer_token_env_var", "http_headers_helper"} & set(server), name
    assert "inputs" not in json.loads((plain.root / ".vscode/mcp.json").read_text())


def test_a_client_that_signs_in_gets_the_address_alone(plain: GitRepo) -> None:
    output = plain.install(URL, "--client", "all", "--sign-in").stdout
    _assert_address_alone(plain)
    assert "Claude Code signs in with: claude mcp login llm-bus" in output
    assert "The hooks need a token" in output
    # The session is still named.
    assert str(_read_servers(plain)["claude"]["headersHelper"]).endswith(" headers claude")


def test_a_reinstallation_switches_between_token_and_sign_in(plain: GitRepo) -> None:
    plain.install(URL, "--client", "all")
    with_token = _read_servers(plain)
    assert all(len(server) > 1 for server in with_token.values())
    plain.install(URL, "--client", "all", "--sign-in")
    for name, server in _read_servers(plain).items():
        assert not {"headers", "oauth", "bearer_token_env_var"} & set(server), name
    plain.install(URL, "--client", "all")
    assert _read_servers(plain) == with_token


def test_the_doctor_knows_that_a_client_that_signs_in_needs_no_variable(plain: GitRepo) -> None:
    token = generate_token()
    for options, is_named in (((), True), (("--sign-in",), False)):
        plain.install(URL, "--client", "gemini", "--save-token", *options, LLM_BUS_TOKEN=token)
        assert ("refers to LLM_BUS_TOKEN" in plain.run_kit("doctor").stdout) is is_named, options


def test_an_uninstall_removes_it(plain: GitRepo) -> None:
    (plain.root / "opencode.json").write_text('{"mcp": {"other": {"type": "remote", "url": "https://other"}}}\n')
    before = (plain.root / "opencode.json").read_bytes()
    plain.install(URL, "--client", "all", "--sign-in")
    plain.run_kit("uninstall")
    assert (plain.root / "opencode.json").read_bytes() == before
    for place in (".mcp.json", ".gemini/settings.json", ".cursor/mcp.json", ".vscode/mcp.json", ".codex/config.toml"):
        assert not (plain.root / place).exists(), place
