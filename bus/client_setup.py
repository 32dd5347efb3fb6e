"""What people and agents are handed to connect: the setup of a token, and the prompt of an invite."""

import json
import shlex
from dataclasses import dataclass
from typing import Any

SERVER_NAME = "llm-bus"
TOKEN_VARIABLE = "LLM_BUS_TOKEN"  # noqa: S105 - the variable's name, not a token


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the bus is, as clients reach it: `web` without a trailing slash, `mcp` the endpoint."""

    web_url: str
    mcp_url: str


@dataclass(frozen=True, slots=True)
class ClientSetup:
    """How one client is connected: one line.

    Attributes:
        key: what programs call it.
        name: what people call it.
        file: where the line belongs; None where it is run in a shell.
        line: a shell line, or JSON for the file, in one line.
    """

    key: str
    name: str
    config_file: str | None
    snippet: str


def build_client_setups(endpoints: Endpoints, token: str) -> list[ClientSetup]:
    """How to connect with a token that was just minted, for each client that we know."""
    url = shlex.quote(endpoints.mcp_url)
    header = shlex.quote(f"Authorization: Bearer {token}")
    export = f"export {TOKEN_VARIABLE}={shlex.quote(token)}"
    headers = {"Authorization": f"Bearer {token}"}
    vscode = {"name": SERVER_NAME, "type": "http", "url": endpoints.mcp_url, "headers": headers}
    return [
        ClientSetup(
            "claude_code",
            "Claude Code",
            None,
            f"claude mcp add --transport http {SERVER_NAME} {url} --header {header}",
        ),
        ClientSetup(
            "codex",
            "Codex",
            None,
            f"{export} && codex mcp add {SERVER_NAME} --url {url} --bearer-token-env-var {TOKEN_VARIABLE}",
        ),
        ClientSetup(
            "cursor",
            "Cursor",
            "~/.cursor/mcp.json",
            _one_line_json({"mcpServers": {SERVER_NAME: {"url": endpoints.mcp_url, "headers": headers}}}),
        ),
        ClientSetup(
            "gemini",
            "Gemini CLI",
            None,
            f"gemini mcp add --transport http {SERVER_NAME} {url} --header {header}",
        ),
        ClientSetup("vscode", "VS Code", None, f"code --add-mcp {shlex.quote(_one_line_json(vscode))}"),
        ClientSetup(
            "opencode",
            "OpenCode",
            "~/.config/opencode/opencode.json",
            _one_line_json({"mcp": {SERVER_NAME: {"type": "remote", "url": endpoints.mcp_url, "headers": headers}}}),
        ),
        ClientSetup(
            "windsurf",
            "Windsurf",
            "~/.codeium/windsurf/mcp_config.json",
            _one_line_json({"mcpServers": {SERVER_NAME: {"serverUrl": endpoints.mcp_url, "headers": headers}}}),
        ),
    ]


# What an agent is told of how to connect has to be held by it, so it is told of these only.
_AGENT_CLIENT_KEYS = ("claude_code", "codex", "gemini")


def build_setup(endpoints: Endpoints, token: str) -> dict[str, Any]:
    """How to connect with a token that was just minted, for programs.

    Returns:
        `note`, `mcp_url`, `env` (the variable that holds the token), `mcp_json` (for a project's .mcp.json,
        without the token itself), `clients`: for some clients the shell line, and `kit`: the line that connects a
        whole repository.
    """
    return {
        "note": "The token is shown only now. Keep it out of git and of the ledger; rotate it if it leaks.",
        "mcp_url": endpoints.mcp_url,
        "env": {TOKEN_VARIABLE: token},
        "mcp_json": mcp_json(endpoints),
        "clients": {
            one.key: one.snippet for one in build_client_setups(endpoints, token) if one.key in _AGENT_CLIENT_KEYS
        },
        "kit": kit_install_command(endpoints),
    }


def kit_install_command(endpoints: Endpoints) -> str:
    """The line that connects a repository and its clients; the token comes from the environment."""
    return f"curl -fsSL {shlex.quote(f'{endpoints.web_url}/kit/install.py')} | python3 -"


def connect_prompt(endpoints: Endpoints, token: str, project_name: str, actor: str) -> str:
    """What to paste to an agent that has a token made for it, so that it connects itself and begins."""
    line = next(one.snippet for one in build_client_setups(endpoints, token) if one.key == "claude_code")
    return (
        f"You are {_one_line_json(actor)} in the project {_one_line_json(project_name)} on LLM Bus, where agents and people coordinate"
        f" over MCP. The endpoint is {endpoints.mcp_url} (streamable HTTP) with the header"
        f" Authorization: Bearer {token}\n\n"
        f"For Claude Code this connects it:\n\n{line}\n\n"
        "For another client write the same endpoint and header into its MCP configuration. Then call whats_new and"
        " follow the instructions of the server. Keep the token out of git, logs and posts."
    )


def mcp_json_with_token(endpoints: Endpoints, token: str) -> dict[str, Any]:
    """As `mcp_json`, but with the token in it: to be kept out of git."""
    card = mcp_json(endpoints)
    card["mcpServers"][SERVER_NAME]["headers"] = {"Authorization": f"Bearer {token}"}
    return card


def _one_line_json(value: Any) -> str:
    """JSON in one line that survives every terminal and every page: ASCII, with the rest escaped."""
    return json.dumps(value)


def mcp_json(endpoints: Endpoints) -> dict[str, Any]:
    """A .mcp.json that is safe to commit: the token comes from the environment."""
    return {
        "mcpServers": {
            SERVER_NAME: {
                "type": "http",
                "url": endpoints.mcp_url,
                "headers": {"Authorization": f"Bearer ${{{TOKEN_VARIABLE}}}"},
            }
        }
    }


def redeem_url(endpoints: Endpoints, code: str) -> str:
    """The page that explains an invite to people."""
    return f"{endpoints.web_url}/join/{code}"


def invite_prompt(endpoints: Endpoints, code: str, project_name: str | None, participant_name: str | None) -> str:
    """What to paste to an agent so that it redeems the invite and connects itself.

    Args:
        project: what to call the project, or None where that is not to be said.
        name: the name that the invite is locked to, or None where the invited chooses.
    """
    body = {"code": code} if participant_name is not None else {"code": code, "name": "CHOOSE-A-NAME"}
    where = "a project" if project_name is None else f"the project {_one_line_json(project_name)}"
    as_whom = "" if participant_name is None else f" as {_one_line_json(participant_name)}"
    choose = "" if participant_name is not None else "Choose a short name for yourself and put it in. "
    curl = (
        f"curl --fail-with-body -sS -X POST {shlex.quote(f'{endpoints.web_url}/join')}"
        f" -H 'Content-Type: application/json' -d {shlex.quote(_one_line_json(body))}"
    )
    return (
        f"You are invited to {where}{as_whom} on LLM Bus, where agents and people coordinate."
        f" {choose}Run this once:\n\n"
        f"{curl}\n\n"
        "The answer holds your token, the command that connects you and what to do next. Keep the token out of git."
        ' With a random "nonce" (32 characters) a lost answer can be fetched again.'
    )


def personal_invite_prompt(endpoints: Endpoints, code: str, project_name: str) -> str:
    """What to send to a person whose invite is for them alone: it is accepted in a browser."""
    return (
        f"You are invited to the project {_one_line_json(project_name)} on LLM Bus, where agents and people coordinate. Open this,"
        f" sign in and accept:\n\n{redeem_url(endpoints, code)}"
    )
