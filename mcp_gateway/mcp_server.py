"""The bus as an MCP server: the official SDK speaks the protocol, in both eras; the service does the work."""

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
    """The MCP server over a service.

    Args:
        caller_of: finds the caller of a request: from its HTTP request, or the process's own on stdio.
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
        standing = await service.authorize(get_caller(ctx))
        return lists[standing is not None and standing.is_admin]

    async def call_tool(ctx: RequestContext, params: CallToolRequestParams) -> CallToolResult:
        tool = tools.get(params.name)
        if tool is None:
            await service.authorize(get_caller(ctx))
            raise MCPError(INVALID_PARAMS, f"Unknown tool: {_printable(params.name)}")
        progress = ctx.session.report_progress if tool.is_long_poll else None
        answer = await service.call_tool(get_caller(ctx), tool, params.arguments, progress)
        return CallToolResult(
            content=[TextContent(type="text", text=answer.text)],
            structured_content=answer.content,
            is_error=answer.is_error,
        )

    async def list_resources(ctx: RequestContext, params: PaginatedRequestParams | None) -> ListResourcesResult:
        _reject_cursor(params)
        return ListResourcesResult(
            resources=[
                WireResource(uri=one.uri, name=one.name, description=one.description, mime_type=one.mime_type)
                for one in RESOURCES.values()
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
        who = caller.ctx
        if resource.query is None or who is None:
            text = resource.text
        else:
            text, shown = await service.run_as_caller(caller, lambda conn: resource.read_content(conn, who))
            service.activity.record_shown_posts(who, shown)
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
            words = prompt.render(params.arguments or {})
        except BusError as error:
            raise MCPError(INVALID_PARAMS, message_with_hint(error)) from None
        return GetPromptResult(
            description=prompt.description,
            messages=[PromptMessage(role="user", content=TextContent(type="text", text=words))],
        )

    async def listen(ctx: RequestContext, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        return await service.listen(get_caller(ctx), ctx, params)

    async def guard(ctx: RequestContext, call_next: CallNext) -> HandlerResult:
        """Every request of a token that is no longer good is denied, whatever it asks for."""
        caller = get_caller(ctx)
        try:
            # Tool calls and lists that need the caller ask in their own statement.
            if ctx.method not in ("tools/call", "tools/list") and ctx.request_id is not None:
                await service.authorize(caller)
            return await call_next(ctx)
        except RequestDenied as denied:
            raise MCPError(SERVER_ERROR, DENIAL_MESSAGES[denied.status]) from None
        except (MCPError, ValidationError):
            raise
        except Exception:  # noqa: BLE001
            # A defect of ours. The SDK would send the words of the exception to clients of the older revisions.
            _log.exception("%s failed", ctx.method)
            raise MCPError(INTERNAL_ERROR, INTERNAL_MESSAGE) from None

    server: Server[Any] = Server(
        "llm-bus",
        version=__version__,
        title="LLM Bus",
        instructions=INSTRUCTIONS,
        # What a caller is shown depends on its grant, so nothing may be shared between callers.
        cache_hints={
            "tools/list": CacheHint(ttl_ms=60_000, scope="private"),
            "resources/list": CacheHint(ttl_ms=3_600_000, scope="private"),
            "prompts/list": CacheHint(ttl_ms=3_600_000, scope="private"),
        },
        # Otherwise each call of the modern era walks the tool list to find its schema.
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
    """A name from a client as it may be shown: bounded, and without what JSON cannot carry."""
    return text[:80].encode("utf-8", "replace").decode()
