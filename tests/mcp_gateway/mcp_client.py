"""Client of the gateway that sends and receives plain HTTP, for both the modern and the handshake protocol."""

import json
import re
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx2

ACCEPT = "application/json, text/event-stream"
MODERN = "2026-07-28"
_request_ids = count(1)


@dataclass(frozen=True)
class McpResponse:
    """An HTTP response; `message` is its JSON-RPC message, sent as JSON or as a stream."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def message(self) -> dict[str, Any]:
        text = self.body
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            # An event stream ends lines with CR and LF only; splitlines() knows more line ends.
            text = "".join(line[5:] for line in re.split(r"\r\n|\n|\r", text) if line.startswith("data:"))
        return json.loads(text)

    @property
    def result(self) -> dict[str, Any]:
        assert self.status == 200, (self.status, self.body)
        return self.message["result"]

    @property
    def structured_content(self) -> dict[str, Any]:
        """The result of a tool, after checking that its text equals its structured content."""
        result = self.result
        assert not result.get("isError"), result
        assert json.loads(result["content"][0]["text"]) == result["structuredContent"]
        return result["structuredContent"]

    @property
    def error(self) -> dict[str, Any]:
        """The structured error of a tool call, after checking that its text is a sentence and not JSON."""
        result = self.result
        assert result["isError"] is True, result
        (block,) = result["content"]
        error = result["structuredContent"]["error"]
        assert block["text"] == error["message"]
        try:
            json.loads(block["text"])
        except ValueError:
            return error
        raise AssertionError(f"The text of the error is JSON: {block['text']}")


@dataclass
class McpClient:
    """A client with one token and one protocol revision: 2026-07-28 if `modern`, else one without headers."""

    url: str
    token: str | None
    modern: bool = True
    http_client: httpx2.Client = field(default_factory=lambda: httpx2.Client(timeout=120))

    def headers(self, method: str, name: str | None = None) -> dict[str, str]:
        headers = {"Accept": ACCEPT, "Content-Type": "application/json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        if self.modern:
            headers |= {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
            if name is not None:
                headers["Mcp-Name"] = name
        return headers

    def body(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if self.modern:
            meta = {
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
            }
            params = {**params, "_meta": meta}
        return {"jsonrpc": "2.0", "id": next(_request_ids), "method": method, "params": params}

    def send(self, content: bytes, headers: Any, method: str = "POST") -> McpResponse:
        response = self.http_client.request(method, self.url, content=content, headers=headers)
        return McpResponse(response.status_code, dict(response.headers), response.text)

    def request(self, method: str, mirrored: str | None = None, /, **params: Any) -> McpResponse:
        content = json.dumps(self.body(method, params)).encode()
        return self.send(content, self.headers(method, mirrored))

    def call(self, tool: str, /, **arguments: Any) -> McpResponse:
        return self.request("tools/call", tool, name=tool, arguments=arguments)

    def close(self) -> None:
        self.http_client.close()
