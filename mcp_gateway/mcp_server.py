"""The MCP server: the official SDK implements all protocol revisions; the service runs the calls."""

import logging
from collections.abc import Callable
from typing import Any

from mcp.server.caching import CacheHint
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    PromptArgument,
    PromptMessage,
    ReadResourceRequestParams,
    ReadResourceResult,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    TextContent,
    TextResourceContents,
    ToolAnnotations,
)
from mcp_types import Prompt as WirePrompt
from mcp_types import Resource as WireResource
from mcp_types import Tool as WireTool
from pydantic import ValidationError

from bus import __version__
from bus.agent_guide import INSTRUCTIONS
from bus.errors import BusError
from mcp_gateway.caller import Caller
from mcp_gateway.error_hints import message_with_hint
from mcp_gateway.prompts import PROMPTS
from mcp_gateway.resources import RESOURCES
from mcp_gateway.service import RequestDenied, Service
from mcp_gateway.tool_registry import Tool
from mcp_gateway.tools import all_tools

RequestContext = ServerRequestContext[Any, Any]
_log = logging.getLogger(__name__)
DENIAL_MESSAGES = {401: "Not authenticated", 403: "Suspended", 429: "Too many requests", 503: "Unavailable"}
SERVER_ERROR = -32000
INTERNAL_MESSAGE = "Internal error; the bus has logged it."


def build_server(service: Service, get_caller: Callable[[RequestContext], Caller]) -> Server[Any]:
    """Build the MCP server of a service.

    Args:
        service: runs the calls.
        get_caller: returns the caller of a request: that of its HTTP request, or on stdio that of the process.
    """
    tools = all_tools()
    wire_tools = {name: _to_mcp_tool(tool) for name, tool in tools.items()}
    lists = {
        is_admin: ListToolsResult(
            tools=[wire_tools[name] for name, tool in tools.items() if is_admin or not tool.admin_only]
        )
        for is_admin in (False, True)
    }

    async def list_tools(ctx: RequestContext, params: PaginatedRequestParams | None) -> ListToolsResult:
        _reject_cursor(params)
        status = await service.authorize(get_caller(ctx))
        return lists[status is not None and status.is_admin]

    async def call_tool(ctx: RequestContext, params: CallToolRequestParams) -> CallToolResult:
        tool = tools.get(params.name)
        if tool is None:
            await service.authorize(get_caller(ctx))
            raise MCPError(INVALID_PARAMS, f"Unknown tool: {_printable(params.name)}")
        report_progress = ctx.session.report_progress if tool.is_long_poll else None
        result = await service.call_tool(get_caller(ctx), tool, params.arguments, report_progress)
        return CallToolResult(
            content=[TextContent(type="text", text=result.text)],
            structured_content=result.content,
            is_error=result.is_error,
        )

    async def list_resources(ctx: RequestContext, params: PaginatedRequestParams | None) -> ListResourcesResult:
        _reject_cursor(params)
        return ListResourcesResult(
            resources=[
                WireResource(
                    uri=resource.uri,
                    name=resource.name,
                    description=resource.description,
                    mime_type=resource.mime_type,
                )
                for resource in RESOURCES.values()
            ]
        )

    async def list_templates(ctx: RequestContext, params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        _reject_cursor(params)
        return ListResourceTemplatesResult(resource_templates=[])

    async def read_resource(ctx: RequestContext, params: ReadResourceRequestParams) -> ReadResourceResult:
        caller = get_caller(ctx)
        resource = RESOURCES.get(params.uri)
        if resource is None:
            await service.authorize(caller)
            raise MCPError(INVALID_PARAMS, "Resource not found", {"uri": _printable(params.uri)})
        caller_ctx = caller.ctx
        if resource.query is None or caller_ctx is None:
            text = resource.text
        else:
            text, post_ids = await service.run_as_caller(caller, lambda conn: resource.read_content(conn, caller_ctx))
            service.activity.record_shown_posts(caller_ctx, post_ids)
        return ReadResourceResult(
            contents=[TextResourceContents(uri=resource.uri, mime_type=resource.mime_type, text=text)]
        )

    async def list_prompts(ctx: RequestContext, params: PaginatedRequestParams | None) -> ListPromptsResult:
        _reject_cursor(params)
        return ListPromptsResult(
            prompts=[
                WirePrompt(
                    name=prompt.name,
                    description=prompt.description,
                    arguments=[
                        PromptArgument(name=name, description=description, required=required)
                        for name, description, required in prompt.arguments
                    ],
                )
                for prompt in PROMPTS.values()
            ]
        )

    async def get_prompt(ctx: RequestContext, params: GetPromptRequestParams) -> GetPromptResult:
        prompt = PROMPTS.get(params.name)
        if prompt is None:
            raise MCPError(INVALID_PARAMS, f"Unknown prompt: {_printable(params.name)}")
        try:
            text = prompt.render(params.arguments or {})
        except BusError as error:
            raise MCPError(INVALID_PARAMS, message_with_hint(error)) from None
        return GetPromptResult(
            description=prompt.description,
            messages=[PromptMessage(role="user", content=TextContent(type="text", text=text))],
        )

    async def listen(ctx: RequestContext, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        return await service.listen(get_caller(ctx), ctx, params)

    async def guard(ctx: RequestContext, call_next: CallNext) -> HandlerResult:
        """Deny every request whose token is no longer valid, and hide the text of unexpected exceptions."""
        caller = get_caller(ctx)
        try:
            # The statements of tool calls and of tools/list authenticate the caller themselves.
            if ctx.method not in ("tools/call", "tools/list") and ctx.request_id is not None:
                await service.authorize(caller)
            return await call_next(ctx)
        except RequestDenied as denied:
            raise MCPError(SERVER_ERROR, DENIAL_MESSAGES[denied.status]) from None
        except (MCPError, ValidationError):
            raise
        except Exception:  # noqa: BLE001
            # The SDK would send the text of the exception to clients of the older revisions.
            _log.exception("%s failed", ctx.method)
            raise MCPError(INTERNAL_ERROR, INTERNAL_MESSAGE) from None

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
        get_tool_input_schema=lambda name: wire_tools[name].input_schema if name in wire_tools else None,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_subscriptions_listen=listen,
    )
    server.middleware.append(guard)
    return server


def _to_mcp_tool(tool: Tool) -> WireTool:
    return WireTool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.input_schema,
        annotations=ToolAnnotations.model_validate(tool.annotations),
    )


def _reject_cursor(params: PaginatedRequestParams | None) -> None:
    if params is not None and params.cursor is not None:
        raise MCPError(INVALID_PARAMS, "Invalid cursor: this list has one page; leave cursor out.")


def _printable(text: str) -> str:
    """Make a name from a client printable: bounded, and without characters that JSON cannot carry."""
    return text[:80].encode("utf-8", "replace").decode()
