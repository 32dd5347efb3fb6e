"""A plan, played: every agent on its own MCP connection, with its own token, step by step in the plan's order."""

import json
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, TextContent

from cli.demo.model import LabelRef, Plan, ResultRef, Step
from cli.demo.setup import ProvisionedFleet

_TIMEOUT_SECONDS = 30.0
# Clients of both eras of the protocol share a bus, so every other agent speaks the older one.
_PROTOCOL_MODES = ("auto", "legacy")
# What a call that is not answered ends with; the task groups of a connection wrap some of it.
_CALL_ERRORS = (MCPError, httpx2.HTTPError, OSError, ExceptionGroup)


class StepFailedError(Exception):
    """A call was refused or not answered; the message says which, with what, and why."""


def is_gateway_reachable(url: str) -> bool:
    """Whether something at `url` asks for a token, as a gateway does."""
    try:
        return httpx2.post(url, json={}, timeout=_TIMEOUT_SECONDS).status_code == 401
    except (httpx2.HTTPError, httpx2.InvalidURL):
        return False


async def run_plan(plan: Plan, fleet: ProvisionedFleet, url: str, on_step: Callable[[], None]) -> None:
    """Play every step of the plan.

    The steps wait for each other, so that the ledgers are the same each time; the connections stay open
    throughout, as those of agents do.

    Args:
        advance: called after each step.
    Raises:
        StepFailedError: a call failed; what follows was not played.
    """
    failure: StepFailedError | None = None
    async with AsyncExitStack() as stack:
        # What leaves this block would come out wrapped by the task groups of the connections.
        try:
            # Reading the certificates takes longer than everything else about a connection.
            trusted = ssl.create_default_context()
            clients = {
                place: await _connect(stack, url, token, _PROTOCOL_MODES[place[1] % 2], trusted)
                for place, token in fleet.tokens.items()
            }
            answers: list[dict[str, Any]] = []
            for step in plan.steps:
                client = clients[step.project, step.agent]
                answers.append(await _call(client, step, _resolve(step.arguments, answers, fleet)))
                on_step()
        except (StepFailedError, *_CALL_ERRORS) as error:
            failure = error if isinstance(error, StepFailedError) else StepFailedError(_error_message(error))
    if failure is not None:
        raise failure


async def _connect(stack: AsyncExitStack, url: str, token: str, mode: str, ssl_context: ssl.SSLContext) -> Client:
    http = httpx2.AsyncClient(
        headers={"Authorization": f"Bearer {token}"}, timeout=_TIMEOUT_SECONDS, verify=ssl_context
    )
    transport = streamable_http_client(url, http_client=await stack.enter_async_context(http))
    return await stack.enter_async_context(Client(transport, mode=mode, read_timeout_seconds=_TIMEOUT_SECONDS))


async def _call(client: Client, step: Step, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        result = await client.call_tool(step.tool, arguments)
    except _CALL_ERRORS as error:
        raise StepFailedError(f"{step.tool} {json.dumps(arguments)}: {_error_message(error)}") from error
    if result.is_error:
        raise StepFailedError(f"{step.tool} {json.dumps(arguments)}: {_result_text(result)}")
    return result.structured_content or {}


def _resolve(value: Any, results: list[dict[str, Any]], fleet: ProvisionedFleet) -> Any:
    """The arguments with what earlier steps answered and how agents are called here."""
    if isinstance(value, ResultRef):
        return results[value.step][value.field]
    if isinstance(value, LabelRef):
        return fleet.labels[value.agent]
    if isinstance(value, dict):
        return {key: _resolve(one, results, fleet) for key, one in value.items()}
    if isinstance(value, list):
        return [_resolve(one, results, fleet) for one in value]
    return value


def _result_text(result: CallToolResult) -> str:
    return " ".join(block.text for block in result.content if isinstance(block, TextContent))


def _error_message(error: BaseException) -> str:
    """The words of an error; of a group, those of the first that it holds."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
