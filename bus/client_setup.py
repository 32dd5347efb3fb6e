"""Client set-up instructions and public URLs: how a token is configured, prompts of invites, links.

The only module here that knows public addresses; no package of the engine imports it.
"""

import json
import shlex
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from bus import scopes

SERVER_NAME = "llm-bus"
TOKEN_VARIABLE = "LLM_BUS_TOKEN"  # noqa: S105 - the variable's name, not a token


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Public addresses of the service.

    Attributes:
        web_url: address of the web, without a trailing slash.
        mcp_url: the gateway's MCP endpoint.
    """

    web_url: str
    mcp_url: str


@dataclass(frozen=True, slots=True)
class ClientSetup:
    """Instructions that connect one MCP client.

    Attributes:
        key: name of the client for programs.
        name: name of the client for people.
        config_file: file that takes the snippet; None if the snippet is run in a shell.
        snippet: one line: a shell command, or JSON for the file.
    """

    key: str
    name: str
    config_file: str | None
    snippet: str


def build_client_setups(endpoints: Endpoints, token: str) -> list[ClientSetup]:
    """Return the set-up of each supported client for a token that was just issued.

    No command has the token among its arguments, which all users of a machine can list: the client reads it from the
    environment, from its configuration file, or asks for it.
    """
    url = shlex.quote(endpoints.mcp_url)
    # The client replaces the variable when it connects, not the shell.
    header = shlex.quote(f"Authorization: Bearer ${{{TOKEN_VARIABLE}}}")
    export = f"export {TOKEN_VARIABLE}={shlex.quote(token)}"
    headers = {"Authorization": f"Bearer {token}"}
    prompt_id = f"{SERVER_NAME}-token"
    vscode = {"type": "http", "url": endpoints.mcp_url, "headers": {"Authorization": f"Bearer ${{input:{prompt_id}}}"}}
    prompt = {"type": "promptString", "id": prompt_id, "description": "LLM Bus token", "password": True}
    return [
        ClientSetup(
            "claude_code",
            "Claude Code",
            None,
            f"{export} && claude mcp add --transport http {SERVER_NAME} {url} --header {header}",
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
            f"{export} && gemini mcp add --transport http {SERVER_NAME} {url} --header {header}",
        ),
        ClientSetup(
            "vscode",
            "VS Code",
            ".vscode/mcp.json",
            _one_line_json({"servers": {SERVER_NAME: vscode}, "inputs": [prompt]}),
        ),
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


def build_sign_in_setups(endpoints: Endpoints) -> list[ClientSetup]:
    """Return the set-up of each supported client that connects with the address alone and signs in by OAuth."""
    url = shlex.quote(endpoints.mcp_url)
    server: dict[str, Any] = {"url": endpoints.mcp_url}
    return [
        ClientSetup(
            "claude_code",
            "Claude Code",
            None,
            f"claude mcp add --transport http {SERVER_NAME} {url} && claude mcp login {SERVER_NAME}",
        ),
        # It signs in as soon as it is added.
        ClientSetup("codex", "Codex", None, f"codex mcp add {SERVER_NAME} --url {url}"),
        ClientSetup(
            "opencode",
            "OpenCode",
            "~/.config/opencode/opencode.json",
            _one_line_json({"mcp": {SERVER_NAME: {"type": "remote", **server}}}),
        ),
        ClientSetup("gemini", "Gemini CLI", None, f"gemini mcp add --transport http {SERVER_NAME} {url}"),
        ClientSetup("cursor", "Cursor", "~/.cursor/mcp.json", _one_line_json({"mcpServers": {SERVER_NAME: server}})),
        ClientSetup(
            "vscode",
            "VS Code",
            ".vscode/mcp.json",
            _one_line_json({"servers": {SERVER_NAME: {"type": "http", **server}}}),
        ),
    ]


_CLIENT_NAMES = {
    "claude-code": "Claude Code",
    "codex": "Codex",
    "cursor": "Cursor",
    "gemini-cli": "Gemini CLI",
    "opencode": "OpenCode",
    "vscode": "VS Code",
    "windsurf": "Windsurf",
}


def client_name(stored: str | None) -> str | None:
    """Return the name for people of a client by its stored name (bus/rules/client_names.py); None for all others."""
    return _CLIENT_NAMES.get(stored or "")


# An agent keeps everything it reads in its context, so its set-up names only these clients.
_AGENT_CLIENT_KEYS = ("claude_code", "codex", "gemini")


def build_setup(endpoints: Endpoints, token: str) -> dict[str, Any]:
    """Return the machine-readable set-up for a token that was just issued.

    Returns:
        `note`, `mcp_url`, `env` (the variable that holds the token), `mcp_json` (content of a project's .mcp.json,
        without the token), `clients` (shell commands of some clients by key) and `kit` (the shell command that
        connects a whole repository).
    """
    return {
        "note": "The token is shown only now. Keep it out of git and of the ledger; rotate it if it leaks.",
        "mcp_url": endpoints.mcp_url,
        "env": {TOKEN_VARIABLE: token},
        "mcp_json": mcp_json(endpoints),
        "clients": {
            setup.key: setup.snippet
            for setup in build_client_setups(endpoints, token)
            if setup.key in _AGENT_CLIENT_KEYS
        },
        "kit": kit_install_command(endpoints),
    }


def kit_install_command(endpoints: Endpoints) -> str:
    """Return the shell command that connects a repository and its clients; it reads the token from the environment."""
    return f"curl -fsSL {shlex.quote(f'{endpoints.web_url}/kit/install.py')} | python3 -"


def connect_prompt(endpoints: Endpoints, token: str, project_name: str, actor: str) -> str:
    """Return the prompt with which an agent connects itself, using a token issued for it."""
    command = next(setup.snippet for setup in build_client_setups(endpoints, token) if setup.key == "claude_code")
    return (
        f"You are {_one_line_json(actor)} in the project {_one_line_json(project_name)} on LLM Bus,"
        f" where agents and people coordinate over MCP."
        f" The endpoint is {endpoints.mcp_url} (streamable HTTP) with the header"
        f" Authorization: Bearer {token}\n\n"
        f"This command connects Claude Code, which reads {TOKEN_VARIABLE} from the environment each time it starts:\n\n"
        f"{command}\n\n"
        "For another client, write the same endpoint and header into its MCP configuration. Then call whats_new and"
        " follow the instructions of the server. Keep the token out of git, logs and posts."
    )


def mcp_json_with_token(endpoints: Endpoints, token: str) -> dict[str, Any]:
    """Return the content of a .mcp.json that contains the token and must stay out of git."""
    content = mcp_json(endpoints)
    content["mcpServers"][SERVER_NAME]["headers"] = {"Authorization": f"Bearer {token}"}
    return content


def _one_line_json(value: Any) -> str:
    """Return JSON on one line, in ASCII with the rest escaped, which every terminal and page displays."""
    return json.dumps(value)


def mcp_json(endpoints: Endpoints) -> dict[str, Any]:
    """Return the content of a .mcp.json that is safe to commit: the token comes from the environment."""
    return {
        "mcpServers": {
            SERVER_NAME: {
                "type": "http",
                "url": endpoints.mcp_url,
                "headers": {"Authorization": f"Bearer ${{{TOKEN_VARIABLE}}}"},
            }
        }
    }


RESOURCE_METADATA_PATH = "/.well-known/oauth-protected-resource"


def resource_metadata_url(endpoints: Endpoints) -> str:
    """Return the URL of the metadata of the MCP endpoint as a protected resource (RFC 9728)."""
    parts = urlsplit(endpoints.mcp_url)
    return f"{parts.scheme}://{parts.netloc}{RESOURCE_METADATA_PATH}{parts.path}"


def resource_metadata(endpoints: Endpoints) -> dict[str, Any]:
    """Return that metadata: which authorization server issues tokens for the endpoint."""
    return {
        "resource": endpoints.mcp_url,
        "resource_name": "LLM Bus",
        "authorization_servers": [endpoints.web_url],
        "bearer_methods_supported": ["header"],
        "scopes_supported": scopes.to_oauth_list(),
    }


def redeem_url(endpoints: Endpoints, code: str) -> str:
    """Return the URL of the page that explains and redeems an invite."""
    return f"{endpoints.web_url}/join/{code}"


def shared_board_url(endpoints: Endpoints, token: str) -> str:
    """Return the URL of a board for viewers without an account (bus/tenancy/share_links.py)."""
    return f"{endpoints.web_url}/shared/{token}/"


def login_link_url(web_url: str, token: str) -> str:
    """Return the URL of the page that uses a login link.

    Args:
        web_url: address of the web, without a trailing slash.
        token: token of the link (bus/auth/login_links.py).
    """
    return f"{web_url}/sign-in/link/{token}"


def invite_prompt(endpoints: Endpoints, code: str, project_name: str | None, participant_name: str | None) -> str:
    """Return the prompt with which an agent redeems an invite and connects itself.

    Args:
        project_name: None leaves the project unnamed.
        participant_name: the name that the invite is locked to; None if the invited agent chooses it.
    """
    body = {"code": code} if participant_name is not None else {"code": code, "name": "CHOOSE-A-NAME"}
    project_phrase = "a project" if project_name is None else f"the project {_one_line_json(project_name)}"
    name_phrase = "" if participant_name is None else f" as {_one_line_json(participant_name)}"
    name_instruction = "" if participant_name is not None else "Choose a short name for yourself and put it in. "
    curl = (
        f"curl --fail-with-body -sS -X POST {shlex.quote(f'{endpoints.web_url}/join')}"
        f" -H 'Content-Type: application/json' -d {shlex.quote(_one_line_json(body))}"
    )
    return (
        f"You are invited to {project_phrase}{name_phrase} on LLM Bus, where agents and people coordinate."
        f" {name_instruction}Run this once:\n\n"
        f"{curl}\n\n"
        "The answer holds your token, the command that connects you and what to do next. Keep the token out of git."
        ' With a random "nonce" (32 characters) a lost answer can be fetched again.'
    )


def personal_invite_prompt(endpoints: Endpoints, code: str, project_name: str) -> str:
    """Return the message for a person whose personal invite is accepted in a browser."""
    return (
        f"You are invited to the project {_one_line_json(project_name)} on LLM Bus,"
        f" where agents and people coordinate. Open this, sign in and accept:\n\n{redeem_url(endpoints, code)}"
    )
