"""The MCP server: the official SDK implements all protocol revisions, and McpHandlers answers the requests."""

from collections.abc import Callable
from typing import Any

from mcp.server.caching import CacheHint
from mcp.server.lowlevel import Server

from bus import __version__
from bus.agent_guide import INSTRUCTIONS
from mcp_gateway.caller import Caller
from mcp_gateway.mcp_handlers import McpHandlers, RequestContext
from mcp_gateway.service import Service


def build_server(service: Service, get_caller: Callable[[RequestContext], Caller]) -> Server[Any]:
    """Build the MCP server of a service.

    Args:
        service: runs the calls.
        get_caller: returns the caller of a request: that of its HTTP request, or on stdio that of the process.
    """
    handlers = McpHandlers(service, get_caller)
    server: Server[Any] = Server(
        "llm-bus",
        version=__version__,
        title="LLM Bus",
        instructions=INSTRUCTIONS,
        # The lists depend on the caller's participation, so no cache may share them between callers.
        cache_hints={
            "tools/list": CacheHint(ttl_ms=60_000, scope="private"),
            "resources/list": CacheHint(ttl_ms=3_600_000, scope="private"),
            "prompts/list": CacheHint(ttl_ms=3_600_000, scope="private"),
        },
        # Without it, each call of revision 2026-07-28 walks the tool list to find its schema.
        get_tool_input_schema=handlers.find_input_schema,
        on_list_tools=handlers.list_tools,
        on_call_tool=handlers.call_tool,
        on_list_resources=handlers.list_resources,
        on_list_resource_templates=handlers.list_resource_templates,
        on_read_resource=handlers.read_resource,
        on_list_prompts=handlers.list_prompts,
        on_get_prompt=handlers.get_prompt,
        on_subscriptions_listen=handlers.listen,
    )
    server.middleware.append(handlers.guard)
    return server
