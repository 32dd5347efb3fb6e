"""The tools, one module per noun. The order of the modules is the order of tools/list, which is fixed."""

from mcp_gateway.tool_registry import Tool, registered_tools
from mcp_gateway.tools import (
    digest,
    invites,
    leases,
    ledger,
    long_poll,
    participants,
    posts,
    presence,
    sequences,
    tasks,
)

_TOOL_MODULES = (participants, digest, posts, ledger, sequences, leases, tasks, long_poll, presence, invites)


def all_tools() -> dict[str, Tool]:
    """Return all tools by name in the order of tools/list; those for project-admins come last."""
    position = {module.__name__: index for index, module in enumerate(_TOOL_MODULES)}
    tools = sorted(registered_tools().values(), key=lambda tool: (tool.admin_only, position[tool.function.__module__]))
    return {tool.name: tool for tool in tools}
