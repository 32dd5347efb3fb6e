"""Generated calls of every tool over HTTP, each judged by its answer and by what it changed."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from bus.coordination import posts, tasks
from bus.db import Database
from bus.errors import ERROR_CODES
from mcp_gateway.tool_registry import Tool
from mcp_gateway.tools import all_tools
from tests.factories import Agent, make_agent, make_project
from tests.mcp_gateway.mcp_client import McpClient, McpResponse
from tests.proof.fuzz.changes import take_changes
from tests.proof.fuzz.judgement import Tally, Violation, check_status, check_text
from tests.proof.fuzz.values import arguments_of

# A new project for each block, so that lists stay short; and a new example tree, which grows with the examples.
_CALLS_PER_PROJECT = 500
_TOOLS = all_tools()
# To build a strategy costs ten times what a draw costs.
_ARGUMENTS = {tool.name: arguments_of(tool) for tool in _TOOLS.values()}
_TOOL_NAMES = st.sampled_from(list(_TOOLS))
_CLIENTS = st.integers(0, 1)
# A wait that begins lasts a second at least, so most of them are refused.
_SHORT_WAIT = 1


@dataclass
class ToolFuzzer:
    """Sends generated calls to one gateway.

    Attributes:
        url: the endpoint of the gateway.
        database: its database, with the change log of changes.py.
        tally: answers by tool and code.
    """

    url: str
    database: Database
    tally: Tally = field(default_factory=Tally)

    def run(self, calls: int, first_seed: int = 0, after_block: Callable[[int], None] = lambda sent: None) -> int:
        """Send so many calls or a few more; return how many.

        Args:
            after_block: called with the number of calls sent so far.
        Raises:
            Violation: an answer or a change that must not be.
        """
        sent = 0
        block = 0
        while sent < calls:
            sent += self._run_block(min(_CALLS_PER_PROJECT, calls - sent), first_seed + block)
            block += 1
            after_block(sent)
        return sent

    def _run_block(self, calls: int, block_seed: int) -> int:
        agent = self._create_project()
        clients = [McpClient(self.url, agent.token, modern) for modern in (True, False)]
        sent = 0
        with self.database.connection() as conn:
            take_changes(conn)

            @seed(block_seed)
            @settings(
                max_examples=calls,
                phases=[Phase.generate],
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(data=st.data())
            def call(data: st.DataObject) -> None:
                nonlocal sent
                tool = _TOOLS[data.draw(_TOOL_NAMES)]
                arguments = data.draw(_ARGUMENTS[tool.name])
                client = clients[data.draw(_CLIENTS)]
                if tool.is_long_poll:
                    arguments = arguments if isinstance(arguments, dict) else {"kind": "any"}
                    is_begun = data.draw(st.integers(0, 19)) == 0
                    arguments["timeout_seconds"] = _SHORT_WAIT if is_begun else data.draw(st.sampled_from((0, 51, "x")))
                response = _send(client, tool, arguments)
                sent += 1
                self._judge(tool, arguments, response, take_changes(conn))

            call()
        for client in clients:
            client.close()
        return sent

    def _judge(self, tool: Tool, arguments: Any, response: McpResponse, changes: set[str]) -> None:
        context = (tool.name, arguments, response.status, response.body[:500])
        check_status(response.status, context)
        sent = json.dumps(arguments, ensure_ascii=False)
        check_text(response.body, sent, context)
        code = _read_code(response, context)
        self.tally.add(f"{tool.name} {code}")
        if code != "ok" and changes:
            raise Violation(f"a refused call changed {changes}: {context!r}")
        if code == "ok" and changes and tool.annotations.get("readOnlyHint"):
            raise Violation(f"a call that only reads changed {changes}: {context!r}")

    def _create_project(self) -> Agent:
        with self.database.transaction() as conn:
            project = make_project(conn)
            alice = make_agent(conn, project, "alice", is_admin=True)
            bob = make_agent(conn, project, "bob", lane="web")
            for number in range(3):
                tasks.create(conn, alice.ctx, f"task {number}")
                posts.create(conn, bob.ctx, "look", to_actor="alice")
        return alice


def _send(client: McpClient, tool: Tool, arguments: Any) -> McpResponse:
    body = client.body("tools/call", {"name": tool.name, "arguments": arguments})
    return client.send(json.dumps(body).encode(), client.headers("tools/call", tool.name))


def _read_code(response: McpResponse, context: object) -> str:
    """Return the code of an answer: ok, one of the tool contract, or that of JSON-RPC or HTTP."""
    if response.status == 503:
        return "http 503"
    if response.status not in (200, 400, 413):
        raise Violation(f"unexpected status: {context!r}")
    try:
        message = response.message
    except ValueError:
        raise Violation(f"not JSON: {context!r}") from None
    if "result" not in message:
        return (
            f"error {message['error']['code']}" if isinstance(message.get("error"), dict) else f"http {response.status}"
        )
    if not message["result"].get("isError"):
        _ = response.structured_content
        return "ok"
    code = response.error["code"]
    if code not in ERROR_CODES:
        raise Violation(f"unknown code: {context!r}")
    return str(code)
