"""What `up` shows when everything answers."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from cli.runtime import OWNER_EMAIL, NewAgent, RuntimeInfo


def render(runtime: RuntimeInfo, agents: list[NewAgent], login_url: str | None = None) -> str:
    """The short screen: addresses, how to connect, the tokens when they are new.

    Args:
        login_url: a link that signs the owner in once, where there is one to hand out.
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
    lines += [
        "",
        "Connect Claude Code:",
        f'  claude mcp add --transport http llm-bus {url} --header "Authorization: Bearer {token}"',
        "Connect Codex:",
        f"  export LLM_BUS_TOKEN={agents[1].token if len(agents) > 1 else token}",
        f"  codex mcp add llm-bus --url {url} --bearer-token-env-var LLM_BUS_TOKEN",
        "",
    ]
    if agents:
        lines.append("Tokens, shown this once:")
        lines += [f"  {agent.project}/{agent.name:<8}{agent.token}" for agent in agents]
        lines.append("")
    command = _llm_bus_command()
    lines += [
        f"Another agent:  {command} agent add demo NAME",
        f"A new token:    {command} agent rotate demo NAME",
        f"To sign in:     {command} login-link {OWNER_EMAIL}  (the link works once, for a quarter of an hour)",
        "Ctrl-C stops everything.",
    ]
    return "\n".join(lines)


def _llm_bus_command() -> str:
    """What to type for `llm-bus`: after `make run` it is not on the PATH."""
    ours = Path(sys.executable).with_name("llm-bus")
    if shutil.which("llm-bus") == str(ours) or not ours.exists():
        return "llm-bus"
    beside = os.path.relpath(ours)
    return shlex.quote(str(ours) if beside.startswith("..") else beside)
