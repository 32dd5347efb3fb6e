"""A small client for scripts and CI that calls the tools over MCP, with the endpoint and the token of an agent.

```python
from cli.client import Client

with Client.from_env() as bus:                     # LLM_BUS_URL and LLM_BUS_TOKEN
    number = bus.call("claim", sequence="adr")["formatted"]
```
"""

import itertools
import json
import os
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import httpx2

_PROTOCOL_VERSION = "2025-06-18"
# Longer than the longest long poll of the server, 50 s.
_READ_TIMEOUT_SECONDS = 65.0
_CONNECT_TIMEOUT_SECONDS = 10.0


class ClientError(Exception):
    """The base class of the client's errors; the message is one sentence."""


class NotConfiguredError(ClientError):
    """LLM_BUS_URL or LLM_BUS_TOKEN is missing."""


class UnreachableError(ClientError):
    """The bus did not respond, or the response is not one of a bus."""


class TokenRejectedError(ClientError):
    """The bus does not accept the token, or the owner is suspended."""


class RefusedError(ClientError):
    """A tool returned an error.

    Attributes:
        code: the error code of the bus (conflict, not_found, …).
        data: the error object, with fields that depend on the code.
    """

    def __init__(self, code: str, message: str, data: dict[str, Any]) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class Client:
    """A connection with one token; use it in a `with` statement and in one thread."""

    def __init__(self, url: str, token: str) -> None:
        # Redirects are not followed, so that the token is sent to the configured address only.
        self._http = httpx2.Client(
            timeout=httpx2.Timeout(_READ_TIMEOUT_SECONDS, connect=_CONNECT_TIMEOUT_SECONDS), follow_redirects=False
        )
        self._url = url
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
            "MCP-Protocol-Version": _PROTOCOL_VERSION,
        }
        self._request_ids = itertools.count(1)

    @classmethod
    def from_env(cls, default_url: str | None = None) -> Self:
        """Create a client for LLM_BUS_URL with the token LLM_BUS_TOKEN.

        Args:
            default_url: the gateway to call if LLM_BUS_URL is not set.

        Raises:
            NotConfiguredError: one of the variables is not set.
        """
        url, token = (os.environ.get(name, "").strip() for name in ("LLM_BUS_URL", "LLM_BUS_TOKEN"))
        url = url or default_url or ""
        if not url:
            raise NotConfiguredError("LLM_BUS_URL is not set: set it to the address of the bus, https://BUS/mcp.")
        if not token:
            raise NotConfiguredError("LLM_BUS_TOKEN is not set: set it to the token of the participant, lbus_….")
        return cls(url, token)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def call(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """Call a tool and return its result; arguments that are None are omitted.

        Raises:
            RefusedError: the tool returned an error.
            TokenRejectedError: the token is not accepted.
            UnreachableError: the bus did not respond.
        """
        given_arguments = {name: value for name, value in arguments.items() if value is not None}
        message = {
            "jsonrpc": "2.0",
            "id": next(self._request_ids),
            "method": "tools/call",
            "params": {"name": tool, "arguments": given_arguments},
        }
        try:
            response = self._http.post(self._url, content=json.dumps(message).encode(), headers=self._headers)
        except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
            raise UnreachableError(f"{self._url} cannot be reached: {error or type(error).__name__}") from error
        return self._parse_response(response)

    def iter_events(self, since: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the events after `since`, oldest first, to the present end of the ledger; no cursor moves."""
        more = True
        while more:
            page = self.call("whats_new", since=since, limit=500, advance_cursor=False)
            yield from page["events"]
            since = page["events"][-1]["id"] if page["events"] else since
            more = page["more"] and bool(page["events"])

    def iter_rows(self, tool: str, key: str, /, **arguments: Any) -> Iterator[dict[str, Any]]:
        """Yield all rows of a list that pages with `before`."""
        before: Any = None
        while True:
            page = self.call(tool, before=before, **arguments)
            yield from page[key]
            before = page.get("next_before")
            if before is None:
                return

    def _parse_response(self, response: httpx2.Response) -> dict[str, Any]:
        if response.status_code in (401, 403):
            raise TokenRejectedError(
                "The bus does not accept the token: it was revoked, rotated or mistyped."
                if response.status_code == 401
                else "The bus refuses the call: the owner of the project is suspended."
            )
        if response.status_code != 200:
            raise UnreachableError(f"{self._url} responded with HTTP {response.status_code}.")
        text = response.text
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            text = "".join(line[5:] for line in text.splitlines() if line.startswith("data:"))
        try:
            message = json.loads(text)
            if "error" in message:
                raise RefusedError("invalid_argument", message["error"]["message"], {})
            result = message["result"]
            content: dict[str, Any] = result["structuredContent"]
            if result.get("isError"):
                refusal = content["error"]
                raise RefusedError(refusal["code"], refusal["message"], refusal)
        except (ValueError, KeyError, TypeError) as error:
            raise UnreachableError(f"The response of {self._url} is not one of an LLM Bus.") from error
        return content
