"""A client of the original service: it initializes with 2024-11-05, sends no version header and parses the text."""

import json
import re
from typing import Any

import httpx2
import pytest

from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.processes import GatewayProcess


class Hook:
    """Sends the requests of the original's commit hook."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        self._id = 0
        self.initialized = self._post(
            "initialize",
            {
                "protocolVersion": "2024-11-05",
                "capabilities": {},
                "clientInfo": {"name": "reconcile-hook", "version": "1"},
            },
        )
        self._post("notifications/initialized", {}, notification=True)

    def tool(self, name: str, arguments: dict[str, Any]) -> Any:
        result = self._post("tools/call", {"name": name, "arguments": arguments})["result"]
        return json.loads(result["content"][0]["text"])

    def _post(self, method: str, params: dict[str, Any], notification: bool = False) -> Any:
        self._id += 1
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if not notification:
            message["id"] = self._id
        response = httpx2.post(self._url, json=message, headers=self._headers, timeout=120)
        if notification:
            assert response.status_code == 202
            return None
        assert response.status_code == 200, response.text
        assert "mcp-session-id" not in response.headers
        if "text/event-stream" in response.headers["content-type"]:
            match = re.search(r"^data: ?(.*)$", response.text, re.MULTILINE)
            assert match
            return json.loads(match.group(1))
        return response.json()


def test_the_hook_of_the_original_works_unchanged(gateways: list[GatewayProcess], team: Team) -> None:
    hook = Hook(gateways[0].url, team.alice.token)
    assert hook.initialized["result"]["protocolVersion"] == "2024-11-05"
    me = hook.tool("whoami", {})
    assert (me["label"], me["is_admin"]) == ("alice", True)
    assert hook.tool("query_events", {"type": "claim", "sequence": "adr", "last_n": 1000})["events"] == []
    claim = hook.tool("claim", {"sequence": "adr", "note": "docs/adr/0001-x.md"})
    assert claim == {"sequence": "adr", "number": 1, "formatted": "1", "note": "docs/adr/0001-x.md"}
    (event,) = hook.tool("query_events", {"type": "claim", "sequence": "adr", "last_n": 1000})["events"]
    assert event["actor"] == me["actor"]
    assert event["payload"]["number"] == 1


def test_the_text_of_an_error_is_not_json_so_parsing_it_fails(gateways: list[GatewayProcess], team: Team) -> None:
    hook = Hook(gateways[0].url, team.alice.token)
    with pytest.raises(json.JSONDecodeError):
        hook.tool("claim", {"sequence": "NOT ALLOWED"})
    with pytest.raises(json.JSONDecodeError):
        hook.tool("query_events", {"actor": "no-such-label"})
