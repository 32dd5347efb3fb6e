"""What people and agents are handed to connect: the setup of a token, and the prompt of an invite."""

import json
import shlex
from dataclasses import dataclass
from typing import Any

from bus import guide

SERVER_NAME = "llm-bus"
TOKEN_VARIABLE = "LLM_BUS_TOKEN"  # noqa: S105 - the variable's name, not a token


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the bus is, as clients reach it: `web` without a trailing slash, `mcp` the endpoint."""

    web: str
    mcp: str


def setup(addresses: Addresses, token: str) -> dict[str, Any]:
    """How to connect with a token that was just minted.

    Returns:
        `note`, `mcp_url`, `env` (the variable that holds the token), `mcp_json` (for a project's .mcp.json,
        without the token itself), `clients`: for each client the shell line, or the file to put it into, `kit`:
        the line that connects a whole repository, and `rules`: what to do once connected.
    """
    url = shlex.quote(addresses.mcp)
    header = shlex.quote(f"Authorization: Bearer {token}")
    export = f"export {TOKEN_VARIABLE}={shlex.quote(token)}"
    return {
        "note": "The token is shown only now. Keep it out of git and of the ledger; rotate it if it leaks.",
        "mcp_url": addresses.mcp,
        "env": {TOKEN_VARIABLE: token},
        "mcp_json": mcp_json(addresses),
        "clients": {
            "claude_code": f"claude mcp add --transport http {SERVER_NAME} {url} --header {header}",
            "codex": f"{export} && codex mcp add {SERVER_NAME} --url {url} --bearer-token-env-var {TOKEN_VARIABLE}",
            "gemini": f"gemini mcp add --transport http {SERVER_NAME} {url} --header {header}",
            **{name: _in_file(path, config) for name, (path, config) in client_files(addresses).items()},
        },
        "kit": kit_command(addresses),
        "rules": guide.summary(),
    }


def kit_command(addresses: Addresses) -> str:
    """The line that connects a repository and its clients; the token comes from the environment."""
    return f"curl -fsSL {shlex.quote(f'{addresses.web}/kit/install.py')} | python3 -"


def client_files(addresses: Addresses) -> dict[str, tuple[str, dict[str, Any]]]:
    """For clients that have no command for it: the file, and what to put into it. The token is in none."""

    def header(reference: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {reference}"}

    url, from_env = addresses.mcp, header(f"${{env:{TOKEN_VARIABLE}}}")
    asked = {"type": "promptString", "id": f"{SERVER_NAME}-token", "description": "LLM Bus token", "password": True}
    in_vscode = {"type": "http", "url": url, "headers": header(f"${{input:{SERVER_NAME}-token}}")}
    in_opencode = {
        "type": "remote",
        "url": url,
        "enabled": True,
        "oauth": False,
        "headers": header(f"{{env:{TOKEN_VARIABLE}}}"),
    }
    return {
        "cursor": (".cursor/mcp.json", {"mcpServers": {SERVER_NAME: {"url": url, "headers": from_env}}}),
        "vscode": (".vscode/mcp.json", {"inputs": [asked], "servers": {SERVER_NAME: in_vscode}}),
        "opencode": ("opencode.json", {"mcp": {SERVER_NAME: in_opencode}}),
        "windsurf": (
            "~/.codeium/windsurf/mcp_config.json",
            {"mcpServers": {SERVER_NAME: {"serverUrl": url, "headers": from_env}}},
        ),
    }


def _in_file(path: str, config: dict[str, Any]) -> str:
    return f"{path}: {json.dumps(config)}"


def mcp_json(addresses: Addresses) -> dict[str, Any]:
    """A .mcp.json that is safe to commit: the token comes from the environment."""
    return {
        "mcpServers": {
            SERVER_NAME: {
                "type": "http",
                "url": addresses.mcp,
                "headers": {"Authorization": f"Bearer ${{{TOKEN_VARIABLE}}}"},
            }
        }
    }


def redeem_url(addresses: Addresses, code: str) -> str:
    """The page that explains an invite to people."""
    return f"{addresses.web}/join/{code}"


def invite_prompt(addresses: Addresses, code: str, project: str | None, name: str | None) -> str:
    """What to paste to an agent so that it redeems the invite and connects itself.

    Args:
        project: what to call the project, or None where that is not to be said.
        name: the name that the invite is locked to, or None where the invited chooses.
    """
    body = {"code": code} if name is not None else {"code": code, "name": "CHOOSE-A-NAME"}
    where = "a project" if project is None else f"the project {json.dumps(project, ensure_ascii=False)}"
    choose = "" if name is not None else "Choose a short name for yourself and put it in. "
    curl = (
        f"curl --fail-with-body -sS -X POST {shlex.quote(f'{addresses.web}/join')}"
        f" -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"
    )
    return (
        f"You are invited to {where} on LLM Bus, where agents and people coordinate. {choose}Run this once:\n\n"
        f"{curl}\n\n"
        "The answer holds your token, the command that connects you and what to do next. Keep the token out of git."
    )
