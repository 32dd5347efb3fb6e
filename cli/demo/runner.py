"""Execution of a plan: one step after the other, each agent with its own MCP connection and token."""

import asyncio
import json
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, TextContent

from bus.config.certificates import trusted_certificates
from cli.demo.model import LabelRef, Plan, ResultRef, Step
from cli.demo.setup import ProvisionedFleet

_TIMEOUT_SECONDS = 30.0
# Every second agent uses the older protocol, since clients of both versions share a bus.
_PROTOCOL_MODES = ("auto", "legacy")
# Errors of a call without a response; the task groups of a connection wrap some of them in a group.
_CALL_ERRORS = (MCPError, httpx2.HTTPError, OSError, ExceptionGroup)


class StepFailedError(Exception):
    """A call was refused or got no response; the message has the tool, the arguments and the reason."""


def is_gateway_reachable(url: str) -> bool:
    """Return whether a request to `url` without a token is refused with 401, as by a gateway."""
    try:
        return httpx2.post(url, json={}, timeout=_TIMEOUT_SECONDS).status_code == 401
    except (httpx2.HTTPError, httpx2.InvalidURL):
        return False


async def run_plan(plan: Plan, fleet: ProvisionedFleet, url: str, on_step: Callable[[], None]) -> None:
    """Run every step of the plan.

    The steps run one after the other, so that the ledgers are reproducible; the connections stay open
    throughout, as those of real agents do.

    Args:
        on_step: called after each step.

    Raises:
        StepFailedError: a call failed; the steps after it were not run.
    """
    failure: StepFailedError | None = None
    async with AsyncExitStack() as stack:
        # Errors are caught here, since the task groups of the connections would wrap an error that leaves the block.
        try:
            clients = await _connect_all(stack, fleet, url)
            results: list[dict[str, Any]] = []
            for step in plan.steps:
                client = clients[step.project, step.agent]
                results.append(await _call(client, step, resolve_placeholders(step.arguments, results, fleet)))
                on_step()
        except (StepFailedError, *_CALL_ERRORS) as error:
            failure = error if isinstance(error, StepFailedError) else StepFailedError(_error_message(error))
    if failure is not None:
        raise failure


async def run_live(
    make_steps: Callable[[Callable[[], bool]], Iterator[Step]],
    fleet: ProvisionedFleet,
    url: str,
    rate: float,
    on_step: Callable[[Step], None],
    results: list[dict[str, Any]],
) -> None:
    """Run steps at a pace until a signal to stop; then finish at once what has begun.

    Args:
        make_steps: returns the steps; its argument says whether to stop.
        rate: events per second, on average.
        on_step: called after each step.
        results: those of earlier steps, to which placeholders may refer.

    Raises:
        StepFailedError: a call failed.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Windows has no handlers of the loop; there Ctrl-C ends the demo between two steps.
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, stopping.set)
    failure: StepFailedError | None = None
    async with AsyncExitStack() as stack:
        try:
            clients = await _connect_all(stack, fleet, url)
            for step in make_steps(stopping.is_set):
                if step.events and not stopping.is_set():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(stopping.wait(), random.expovariate(rate))
                arguments = resolve_placeholders(step.arguments, results, fleet)
                results.append(await _call(clients[step.project, step.agent], step, arguments))
                on_step(step)
        except (StepFailedError, *_CALL_ERRORS) as error:
            failure = error if isinstance(error, StepFailedError) else StepFailedError(_error_message(error))
    if failure is not None:
        raise failure


async def _connect_all(stack: AsyncExitStack, fleet: ProvisionedFleet, url: str) -> dict[tuple[int, int], Client]:
    """Connect each agent in each of its projects; by project and agent."""
    return {
        (project, agent): await _connect(stack, url, token, _PROTOCOL_MODES[agent % 2])
        for (project, agent), token in fleet.tokens.items()
    }


async def _connect(stack: AsyncExitStack, url: str, token: str, mode: str) -> Client:
    http = httpx2.AsyncClient(
        headers={"Authorization": f"Bearer {token}"}, timeout=_TIMEOUT_SECONDS, verify=trusted_certificates()
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


def resolve_placeholders(value: Any, results: list[dict[str, Any]], fleet: ProvisionedFleet) -> Any:
    """Replace the placeholders in the arguments by results of earlier steps and by labels."""
    if isinstance(value, ResultRef):
        return results[value.step][value.field]
    if isinstance(value, LabelRef):
        return fleet.labels[value.agent]
    if isinstance(value, dict):
        return {key: resolve_placeholders(item, results, fleet) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve_placeholders(item, results, fleet) for item in value]
    return value


def _result_text(result: CallToolResult) -> str:
    return " ".join(block.text for block in result.content if isinstance(block, TextContent))


def _error_message(error: BaseException) -> str:
    """Return the message of an error, or of the first error of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
