"""What people and agents are handed to connect: the setup of a token, and the prompt of an invite."""

import json
import shlex
from dataclasses import dataclass
from typing import Any

SERVER_NAME = "llm-bus"
TOKEN_VARIABLE = "LLM_BUS_TOKEN"  # noqa: S105 - the variable's name, not a token


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the bus is, as clients reach it: `web` without a trailing slash, `mcp` the endpoint."""

    web: str
    mcp: str


@dataclass(frozen=True, slots=True)
class Client:
    """How one client is connected: one line.

    Attributes:
        key: what programs call it.
        name: what people call it.
        file: where the line belongs; None where it is run in a shell.
        line: a shell line, or JSON for the file, in one line.
    """

    key: str
    name: str
    file: str | None
    line: str


def clients(addresses: Addresses, token: str) -> list[Client]:
    """How to connect with a token that was just minted, for each client that we know."""
    url = shlex.quote(addresses.mcp)
    header = shlex.quote(f"Authorization: Bearer {token}")
    export = f"export {TOKEN_VARIABLE}={shlex.quote(token)}"
    headers = {"Authorization": f"Bearer {token}"}
    vscode = {"name": SERVER_NAME, "type": "http", "url": addresses.mcp, "headers": headers}
    return [
        Client(
            "claude_code",
            "Claude Code",
            None,
            f"claude mcp add --transport http {SERVER_NAME} {url} --header {header}",
        ),
        Client(
            "codex",
            "Codex",
            None,
            f"{export} && codex mcp add {SERVER_NAME} --url {url} --bearer-token-env-var {TOKEN_VARIABLE}",
        ),
        Client(
            "cursor",
            "Cursor",
            "~/.cursor/mcp.json",
            _json({"mcpServers": {SERVER_NAME: {"url": addresses.mcp, "headers": headers}}}),
        ),
        Client(
            "gemini",
            "Gemini CLI",
            None,
            f"gemini mcp add --transport http {SERVER_NAME} {url} --header {header}",
        ),
        Client("vscode", "VS Code", None, f"code --add-mcp {shlex.quote(_json(vscode))}"),
        Client(
            "opencode",
            "OpenCode",
            "~/.config/opencode/opencode.json",
            _json({"mcp": {SERVER_NAME: {"type": "remote", "url": addresses.mcp, "headers": headers}}}),
        ),
        Client(
            "windsurf",
            "Windsurf",
            "~/.codeium/windsurf/mcp_config.json",
            _json({"mcpServers": {SERVER_NAME: {"serverUrl": addresses.mcp, "headers": headers}}}),
        ),
    ]


# What an agent is told of how to connect has to be held by it, so it is told of these only.
_TOLD = ("claude_code", "codex", "gemini")


def setup(addresses: Addresses, token: str) -> dict[str, Any]:
    """How to connect with a token that was just minted, for programs.

    Returns:
        `note`, `mcp_url`, `env` (the variable that holds the token), `mcp_json` (for a project's .mcp.json,
        without the token itself), `clients`: for some clients the shell line, and `kit`: the line that connects a
        whole repository.
    """
    return {
        "note": "The token is shown only now. Keep it out of git and of the ledger; rotate it if it leaks.",
        "mcp_url": addresses.mcp,
        "env": {TOKEN_VARIABLE: token},
        "mcp_json": mcp_json(addresses),
        "clients": {one.key: one.line for one in clients(addresses, token) if one.key in _TOLD},
        "kit": kit_command(addresses),
    }


def kit_command(addresses: Addresses) -> str:
    """The line that connects a repository and its clients; the token comes from the environment."""
    return f"curl -fsSL {shlex.quote(f'{addresses.web}/kit/install.py')} | python3 -"


def connect_prompt(addresses: Addresses, token: str, project: str, actor: str) -> str:
    """What to paste to an agent that has a token made for it, so that it connects itself and begins."""
    line = next(one.line for one in clients(addresses, token) if one.key == "claude_code")
    return (
        f"You are {_json(actor)} in the project {_json(project)} on LLM Bus, where agents and people coordinate"
        f" over MCP. The endpoint is {addresses.mcp} (streamable HTTP) with the header"
        f" Authorization: Bearer {token}\n\n"
        f"For Claude Code this connects it:\n\n{line}\n\n"
        "For another client write the same endpoint and header into its MCP configuration. Then call whats_new and"
        " follow the instructions of the server. Keep the token out of git, logs and posts."
    )


def token_json(addresses: Addresses, token: str) -> dict[str, Any]:
    """As `mcp_json`, but with the token in it: to be kept out of git."""
    card = mcp_json(addresses)
    card["mcpServers"][SERVER_NAME]["headers"] = {"Authorization": f"Bearer {token}"}
    return card


def _json(value: Any) -> str:
    """JSON in one line that survives every terminal and every page: ASCII, with the rest escaped."""
    return json.dumps(value)


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
    where = "a project" if project is None else f"the project {_json(project)}"
    as_whom = "" if name is None else f" as {_json(name)}"
    choose = "" if name is not None else "Choose a short name for yourself and put it in. "
    curl = (
        f"curl --fail-with-body -sS -X POST {shlex.quote(f'{addresses.web}/join')}"
        f" -H 'Content-Type: application/json' -d {shlex.quote(_json(body))}"
    )
    return (
        f"You are invited to {where}{as_whom} on LLM Bus, where agents and people coordinate."
        f" {choose}Run this once:\n\n"
        f"{curl}\n\n"
        "The answer holds your token, the command that connects you and what to do next. Keep the token out of git."
        ' With a random "nonce" (32 characters) a lost answer can be fetched again.'
    )


def mail_prompt(addresses: Addresses, code: str, project: str) -> str:
    """What to send to a person whose invite is for them alone: it is accepted in a browser."""
    return (
        f"You are invited to the project {_json(project)} on LLM Bus, where agents and people coordinate. Open this,"
        f" sign in and accept:\n\n{redeem_url(addresses, code)}"
    )
