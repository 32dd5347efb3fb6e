"""The tools, one file per noun. Their order here is the order of tools/list, which is fixed."""

from mcp_gateway.tool_registry import Tool, registered
from mcp_gateway.tools import digest, invites, leases, ledger, participants, posts, presence, sequences, tasks, long_poll

_MODULES = (participants, digest, posts, ledger, sequences, leases, tasks, long_poll, presence, invites)


def all_tools() -> dict[str, Tool]:
    """Every tool by name, in the order of tools/list: those for everyone, then those for project-admins."""
    position = {module.__name__: index for index, module in enumerate(_MODULES)}
    found = sorted(registered().values(), key=lambda tool: (tool.admin, position[tool.function.__module__]))
    return {tool.name: tool for tool in found}
