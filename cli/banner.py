"""The text that `up` prints when the bus is ready."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from cli.runtime import OWNER_EMAIL, NewAgent, RuntimeInfo


def render(runtime: RuntimeInfo, agents: list[NewAgent], login_url: str | None = None) -> str:
    """Render the addresses, the commands that connect a client, and new tokens.

    Args:
        agents: the agents that this start created.
        login_url: a link that signs the owner in once.
    """
    rows = [("gateway", runtime.mcp_url)]
    if runtime.web:
        rows.insert(0, ("web", runtime.public_url))
    if login_url is not None:
        rows.insert(1, ("sign in", login_url))
    rows.append(("data", runtime.data))
    lines = ["", "LLM Bus is running.", ""]
    lines += [f"  {name:<9}{value}" for name, value in rows]
    url = shlex.quote(runtime.mcp_url)
    token = agents[0].token if agents else "TOKEN"
    lines += ["", "Connect with the address alone, and sign in in the browser:"] if runtime.web else []
    lines += [f"  claude mcp add --transport http llm-bus {url} && claude mcp login llm-bus"] if runtime.web else []
    lines += [
        "",
        "Or with a token, Claude Code:",
        f"  export LLM_BUS_TOKEN={token}",
        f"  claude mcp add --transport http llm-bus {url} --header 'Authorization: Bearer ${{LLM_BUS_TOKEN}}'",
        "Codex:",
        f"  export LLM_BUS_TOKEN={agents[1].token if len(agents) > 1 else token}",
        f"  codex mcp add llm-bus --url {url} --bearer-token-env-var LLM_BUS_TOKEN",
        "",
    ]
    if agents:
        lines.append("Tokens, shown only once:")
        lines += [f"  {agent.project}/{agent.name:<8}{agent.token}" for agent in agents]
        lines.append("")
    command = _llm_bus_command()
    lines += [
        f"Add an agent:   {command} agent add demo NAME",
        f"Rotate a token: {command} agent rotate demo NAME",
        f"Sign in:        {command} login-link {OWNER_EMAIL}  (the link works once, for 15 minutes)",
        "Press Ctrl-C to stop.",
    ]
    return "\n".join(lines)


def _llm_bus_command() -> str:
    """Return how to invoke `llm-bus` from here: after `make run` it is not on the PATH."""
    executable = Path(sys.executable).with_name("llm-bus")
    if shutil.which("llm-bus") == str(executable) or not executable.exists():
        return "llm-bus"
    relative_path = os.path.relpath(executable)
    return shlex.quote(str(executable) if relative_path.startswith("..") else relative_path)
