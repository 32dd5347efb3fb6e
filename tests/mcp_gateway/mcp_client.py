"""Raw clients of the gateway, one for each era: what a hand-written client sends and gets, byte for byte."""

import json
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx2

ACCEPT = "application/json, text/event-stream"
MODERN = "2026-07-28"
_request_ids = count(1)


@dataclass(frozen=True)
class McpResponse:
    """One HTTP answer; `message` is the JSON-RPC message in it, whether it came as JSON or as a stream."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def message(self) -> dict[str, Any]:
        text = self.body
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            text = "".join(line[5:] for line in text.splitlines() if line.startswith("data:"))
        return json.loads(text)

    @property
    def result(self) -> dict[str, Any]:
        assert self.status == 200, (self.status, self.body)
        return self.message["result"]

    @property
    def structured_content(self) -> dict[str, Any]:
        """What a tool answered, after checking that text and structured content say the same."""
        result = self.result
        assert not result.get("isError"), result
        assert json.loads(result["content"][0]["text"]) == result["structuredContent"]
        return result["structuredContent"]

    @property
    def error(self) -> dict[str, Any]:
        """The error of a tool call, after checking its form: a sentence that is not JSON, and its facts."""
        result = self.result
        assert result["isError"] is True, result
        (block,) = result["content"]
        facts = result["structuredContent"]["error"]
        assert block["text"] == facts["message"]
        try:
            json.loads(block["text"])
        except ValueError:
            return facts
        raise AssertionError(f"an error that parses as JSON: {block['text']}")


@dataclass
class McpClient:
    """One connection that speaks one era with one token."""

    url: str
    token: str | None
    modern: bool = True
    http_client: httpx2.Client = field(default_factory=lambda: httpx2.Client(timeout=30))

    def headers(self, method: str, name: str | None = None) -> dict[str, str]:
        sent = {"Accept": ACCEPT, "Content-Type": "application/json"}
        if self.token is not None:
            sent["Authorization"] = f"Bearer {self.token}"
        if self.modern:
            sent |= {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
            if name is not None:
                sent["Mcp-Name"] = name
        return sent

    def body(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if self.modern:
            meta = {
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
            }
            params = {**params, "_meta": meta}
        return {"jsonrpc": "2.0", "id": next(_request_ids), "method": method, "params": params}

    def send(self, content: bytes, headers: Any, method: str = "POST") -> McpResponse:
        answer = self.http_client.request(method, self.url, content=content, headers=headers)
        return McpResponse(answer.status_code, dict(answer.headers), answer.text)

    def request(self, method: str, mirrored: str | None = None, /, **params: Any) -> McpResponse:
        content = json.dumps(self.body(method, params)).encode()
        return self.send(content, self.headers(method, mirrored))

    def call(self, tool: str, /, **arguments: Any) -> McpResponse:
        return self.request("tools/call", tool, name=tool, arguments=arguments)

    def close(self) -> None:
        self.http_client.close()
