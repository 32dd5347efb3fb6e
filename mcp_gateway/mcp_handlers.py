"""The answers to MCP requests; the official SDK translates them for each revision of the protocol."""

import asyncio
import dataclasses
import difflib
import logging
import re
from collections.abc import Callable, Iterable
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
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

from bus.errors import BusError
from bus.scopes import SCOPES, Scope, includes
from mcp_gateway.argument_coercion import describe_sent, parse_object_text
from mcp_gateway.caller import Caller
from mcp_gateway.denials import DENYING_ERRORS, RequestDenied
from mcp_gateway.error_hints import message_with_hint
from mcp_gateway.invalid_params import explain_invalid_params
from mcp_gateway.prompts import PROMPTS
from mcp_gateway.resources import RESOURCES
from mcp_gateway.service import Service
from mcp_gateway.tool_registry import Tool
from mcp_gateway.tool_runner import ToolResult
from mcp_gateway.tools import all_tools

RequestContext = ServerRequestContext[Any, Any]
_log = logging.getLogger(__name__)
SERVER_ERROR = -32000
INTERNAL_MESSAGE = "Internal error; the bus has logged it."


class McpHandlers:
    """The answers to MCP requests: one method per request, named after it.

    A handler that raises RequestDenied denies the request; `guard` records the denial on the caller.
    """

    def __init__(self, service: Service, get_caller: Callable[[RequestContext], Caller]) -> None:
        self._service = service
        self._get_caller = get_caller
        self._tools = all_tools()
        self._wire_tools = {name: _to_mcp_tool(tool) for name, tool in self._tools.items()}
        self._tool_lists: dict[Scope, ListToolsResult] = {
            scope: ListToolsResult(
                tools=[self._wire_tools[name] for name, tool in self._tools.items() if includes(scope, tool.scope)]
            )
            for scope in SCOPES
        }

    async def guard(self, ctx: RequestContext, call_next: CallNext) -> HandlerResult:
        """Deny every request whose token is no longer valid, and hide the text of unexpected exceptions."""
        caller = self._get_caller(ctx)
        try:
            # The statements of tool calls and of tools/list authenticate the caller themselves.
            if ctx.method not in ("tools/call", "tools/list") and ctx.request_id is not None:
                await self._service.authenticator.authorize(caller.ctx)
            return await call_next(_parse_arguments_text(ctx))
        except RequestDenied as denied:
            caller.denied = denied
            raise MCPError(SERVER_ERROR, denied.message) from None
        except MCPError:
            raise
        except ValidationError as error:
            raise MCPError(INVALID_PARAMS, self._explain_invalid_params(ctx, error)) from None
        except Exception:  # noqa: BLE001
            # The SDK would send the text of the exception to clients of the older revisions.
            _log.exception("%s failed", ctx.method)
            raise MCPError(INTERNAL_ERROR, INTERNAL_MESSAGE) from None

    def _explain_invalid_params(self, ctx: RequestContext, error: ValidationError) -> str:
        sentence = explain_invalid_params(ctx.method, error)
        name = (ctx.params or {}).get("name")
        tool = self._tools.get(name) if ctx.method == "tools/call" and isinstance(name, str) else None
        if tool is not None and sentence.startswith("arguments must"):
            return f"{sentence} {tool.name} takes: {tool.argument_names}."
        return sentence

    def find_input_schema(self, tool_name: str) -> dict[str, Any] | None:
        """Return the JSON Schema of a tool's arguments; None if there is no such tool."""
        tool = self._wire_tools.get(tool_name)
        return None if tool is None else tool.input_schema

    async def list_tools(self, context: RequestContext, params: PaginatedRequestParams | None) -> ListToolsResult:
        """Answer tools/list: what the caller may call, and what its client can ask its owner for."""
        _reject_cursor(params)
        ctx = self._get_caller(context).ctx
        if ctx is None:
            return self._tool_lists["write"]
        return self._tool_lists[await self._service.authenticator.find_offered_scope(ctx)]

    async def call_tool(self, context: RequestContext, params: CallToolRequestParams) -> CallToolResult:
        """Answer tools/call."""
        ctx = self._get_caller(context).ctx
        tool = self._tools.get(params.name)
        if tool is None:
            await self._service.authenticator.authorize(ctx)
            raise MCPError(INVALID_PARAMS, _unknown_name("tool", params.name, self._tools, "tools/list"))
        report_progress = context.session.report_progress if tool.is_long_poll else None
        calling = asyncio.ensure_future(
            self._service.tool_runner.call_tool(ctx, tool, params.arguments, report_progress)
        )
        try:
            # A long poll ends when the client departs. Another call runs to its end, and what it took is given back.
            result = await (calling if tool.is_long_poll else asyncio.shield(calling))
        except asyncio.CancelledError:
            calling.add_done_callback(_give_back_unanswered)
            raise
        if result.delivery is not None:
            self._get_caller(context).track(result.delivery)
        return CallToolResult(
            content=[TextContent(type="text", text=result.text)],
            structured_content=result.content,
            is_error=result.is_error,
        )

    async def list_resources(
        self, context: RequestContext, params: PaginatedRequestParams | None
    ) -> ListResourcesResult:
        """Answer resources/list."""
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

    async def list_resource_templates(
        self, context: RequestContext, params: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        """Answer resources/templates/list; there are none."""
        _reject_cursor(params)
        return ListResourceTemplatesResult(resource_templates=[])

    async def read_resource(self, context: RequestContext, params: ReadResourceRequestParams) -> ReadResourceResult:
        """Answer resources/read."""
        ctx = self._get_caller(context).ctx
        resource = RESOURCES.get(params.uri)
        if resource is None:
            await self._service.authenticator.authorize(ctx)
            message = _unknown_name("resource", params.uri, RESOURCES, "resources/list")
            raise MCPError(INVALID_PARAMS, f"Resource not found. {message}", {"uri": _printable(params.uri)})
        if resource.query is None or ctx is None:
            text = resource.text
        else:
            text, post_ids = await self._service.engine.run_as_caller(
                ctx, lambda conn: resource.read_content(conn, ctx)
            )
            self._service.activity.record_shown_posts(ctx, post_ids)
        return ReadResourceResult(
            contents=[TextResourceContents(uri=resource.uri, mime_type=resource.mime_type, text=text)]
        )

    async def list_prompts(self, context: RequestContext, params: PaginatedRequestParams | None) -> ListPromptsResult:
        """Answer prompts/list."""
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

    async def get_prompt(self, context: RequestContext, params: GetPromptRequestParams) -> GetPromptResult:
        """Answer prompts/get."""
        prompt = PROMPTS.get(params.name)
        if prompt is None:
            raise MCPError(INVALID_PARAMS, _unknown_name("prompt", params.name, PROMPTS, "prompts/list"))
        try:
            text = prompt.render(params.arguments or {})
        except BusError as error:
            raise MCPError(INVALID_PARAMS, message_with_hint(error)) from None
        return GetPromptResult(
            description=prompt.description,
            messages=[PromptMessage(role="user", content=TextContent(type="text", text=text))],
        )

    async def listen(
        self, context: RequestContext, params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Answer subscriptions/listen: the answer ends when the stream does."""
        ctx = self._get_caller(context).ctx
        if ctx is None:
            raise RequestDenied(401, "unauthenticated")
        try:
            return await self._service.streams.listen(ctx, context, params)
        except DENYING_ERRORS as error:
            raise RequestDenied.from_error(error) from None


def _give_back_unanswered(calling: "asyncio.Task[ToolResult]") -> None:
    if not calling.cancelled() and calling.exception() is None and (delivery := calling.result().delivery) is not None:
        delivery.settle(False)


def _to_mcp_tool(tool: Tool) -> WireTool:
    return WireTool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.input_schema,
        annotations=ToolAnnotations.model_validate(tool.annotations),
        # Claude Code shows its model only the names of other tools until the model searches for one.
        _meta={"anthropic/alwaysLoad": True} if tool.always_load else None,
    )


def _reject_cursor(params: PaginatedRequestParams | None) -> None:
    if params is not None and params.cursor:
        raise MCPError(
            INVALID_PARAMS,
            f"Invalid cursor: {describe_sent(params.cursor)} was sent; this list has one page, leave cursor out.",
        )


def _parse_arguments_text(ctx: RequestContext) -> RequestContext:
    """Replace arguments that were sent as JSON text, or as an empty list, with the object."""
    if ctx.method not in ("tools/call", "prompts/get") or not ctx.params or "arguments" not in ctx.params:
        return ctx
    arguments = ctx.params["arguments"]
    if arguments is None or isinstance(arguments, dict):
        return ctx
    return dataclasses.replace(ctx, params={**ctx.params, "arguments": parse_object_text(arguments)})


def _unknown_name(noun: str, name: str, names: Iterable[str], listing_method: str) -> str:
    # Clients show models the names with a prefix, such as mcp__llm-bus__claim.
    spellings = (name[:80].lower(), re.split(r"__|[:./]", name[:80].lower())[-1])
    near_names = next(filter(None, (difflib.get_close_matches(text, list(names), 3, 0.6) for text in spellings)), [])
    examples = f", such as {', '.join(near_names)}" if near_names else ""
    return f"Unknown {noun}: {_printable(name)}; send a name of {listing_method}{examples}."


def _printable(text: str) -> str:
    """Make a name from a client printable: bounded, and without characters that JSON cannot carry."""
    return text[:80].encode("utf-8", "replace").decode()
