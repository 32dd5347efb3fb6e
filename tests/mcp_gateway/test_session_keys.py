"""How a call names its session: by a header, or by the `_meta` of its client."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient, McpResponse

Connect = Callable[..., McpClient]


def _call(client: McpClient, tool: str, headers: dict[str, str] | None = None, **meta: Any) -> McpResponse:
    body = client.body("tools/call", {"name": tool, "arguments": {}})
    if meta:
        body["params"]["_meta"] = {**body["params"].get("_meta", {}), **meta}
    return client.send(json.dumps(body).encode(), {**client.headers("tools/call", tool), **(headers or {})})


def _event_count(response: McpResponse) -> int:
    return len(response.structured_content["events"])


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("progress", [{}, {"progressToken": 1}])
def test_the_header_wins_over_the_meta_of_a_call(
    connect: Connect, team: Team, modern: bool, progress: dict[str, Any]
) -> None:
    client = connect(team.bob, modern=modern)
    connect(team.alice).call("claim", sequence="s")
    assert _event_count(_call(client, "whats_new", {"X-Bus-Session": "a"}, **progress)) == 1
    assert _event_count(_call(client, "whats_new", {"X-Bus-Session": "a"}, **progress)) == 0
    for meta in (
        {"llm-bus/session": "b"},
        {"x-codex-turn-metadata": {"session_id": "c", "turn_id": "1"}},
        {"x-codex-turn-metadata": json.dumps({"session_id": "d"})},
    ):
        assert _event_count(_call(client, "whats_new", {"X-Bus-Session": "a"}, **meta, **progress)) == 0
        assert _event_count(_call(client, "whats_new", **meta, **progress)) == 1
        assert _event_count(_call(client, "whats_new", **meta, **progress)) == 0
    assert _event_count(_call(client, "whats_new", **progress)) == 1


@pytest.mark.parametrize("method", ["tools/call", "tools/list"])
@pytest.mark.parametrize("key", ["a b", "x" * 129, "a\tb"])
def test_a_malformed_key_gets_400_that_says_what_to_send(connect: Connect, team: Team, method: str, key: str) -> None:
    client = connect(team.alice)
    params: dict[str, Any] = {"name": "whoami", "arguments": {}} if method == "tools/call" else {}
    headers = client.headers(method, params.get("name"))
    body = client.body(method, params)
    responses = [client.send(json.dumps(body).encode(), {**headers, "X-Bus-Session": key})]
    body["params"]["_meta"]["llm-bus/session"] = key
    responses.append(client.send(json.dumps(body).encode(), headers))
    for response in responses:
        assert response.status == 400
        assert "1 to 128 printable ASCII characters" in json.loads(response.body)["message"]


def test_an_empty_header_names_no_session(connect: Connect, team: Team) -> None:
    client = connect(team.bob)
    connect(team.alice).call("claim", sequence="s")
    assert _event_count(_call(client, "whats_new")) == 1
    assert _event_count(_call(client, "whats_new", {"X-Bus-Session": ""})) == 0
    assert _event_count(_call(client, "whats_new", {"X-Bus-Session": ""}, **{"llm-bus/session": "a"})) == 0


def test_codex_names_its_sub_agents(connect: Connect, team: Team) -> None:
    client = connect(team.bob)
    for thread_id, expected in (("t1", "c1"), ("t2", "c1/t2"), (None, "c1")):
        meta = {"session_id": "c1", "thread_id": "c1" if thread_id == "t1" else thread_id}
        body = client.body("tools/call", {"name": "lease", "arguments": {"surface": f"{thread_id}.py"}})
        body["params"]["_meta"]["x-codex-turn-metadata"] = meta
        client.send(json.dumps(body).encode(), client.headers("tools/call", "lease"))
        (held,) = client.call("who_holds", surface=f"{thread_id}.py").structured_content["leases"]
        assert held["session"] == expected


def test_sessions_of_both_processes_share_their_state(connect: Connect, team: Team) -> None:
    connect(team.alice).call("claim", sequence="s")
    first, second = (connect(team.bob, process=process) for process in (0, 1))
    assert _event_count(_call(first, "whats_new", {"X-Bus-Session": "a"})) == 1
    assert _event_count(_call(second, "whats_new", {"X-Bus-Session": "a"})) == 0
    assert _event_count(_call(second, "whats_new", {"X-Bus-Session": "a/agent"})) == 0
    assert _event_count(_call(second, "whats_new", {"X-Bus-Session": "b"})) == 1
