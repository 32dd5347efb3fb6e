"""Calls of the bus within a time budget: one deadline for all calls, also if the network hangs.

Each call runs in a daemon thread, because neither a DNS look-up nor a server that sends one byte per second can be
given a deadline from inside. The caller ends the process with os._exit, which waits for no thread.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from kit import VERSION
from kit.connection import is_loopback
from kit.plain_text import one_line
from kit.token_format import is_well_formed

_MAX_RESPONSE_BYTES = 4 * 1024 * 1024
_MAX_ERROR_LENGTH = 500
BAD_REQUEST = 400
NOT_FOUND = 404
_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
    "User-Agent": f"llm-bus-kit/{VERSION}",
    # The service accepts single calls in this version: no session, no handshake, one round trip.
    "MCP-Protocol-Version": "2025-06-18",
}


class UnreachableError(Exception):
    """There was no valid response of a bus; `status` is the HTTP status, if there was one."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class RefusedError(Exception):
    """The bus refused a call; the message is its one sentence that says what to do."""


class TimeBudget:
    """The time for all calls of a command."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._deadline = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the remaining seconds, at least 0."""
        return max(0.0, self._deadline - time.monotonic())


class BusClient:
    """One connection to the bus, for one thread."""

    def __init__(self, endpoint: str, token: str | None, budget: TimeBudget, session_key: str | None = None) -> None:
        """Prepare a connection.

        Args:
            endpoint: an address that a person confirmed (`config.load_config` checks it).
            token: None to send none.
            budget: the time for all calls.
            session_key: the session of the participant for which the calls are; None for none.
        """
        self._endpoint = endpoint
        self._token = token
        self._budget = budget
        self._session_key = session_key
        self._connection: http.client.HTTPConnection | None = None

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool. Returns its result.

        Raises:
            RefusedError: the bus refused the call.
            UnreachableError: there was no valid response.
        """
        message = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": tool, "arguments": arguments},
        }
        content_type, body = self._request("POST", self._endpoint, self._make_headers(), json.dumps(message).encode())
        return _parse_tool_result(content_type, body)

    def look(self, **members: Any) -> dict[str, Any]:
        """Tell the bus that the session is alive, and ask what it has not been shown. Returns the answer.

        Raises:
            UnreachableError: there was no valid response; with status 404, the bus knows no sessions.
        """
        return self._request_session("POST", json.dumps(members).encode())

    def end_session(self) -> dict[str, Any]:
        """End the session: its leases are released. Returns the answer.

        Raises:
            UnreachableError: there was no valid response.
        """
        return self._request_session("DELETE", None)

    def _request_session(self, method: str, body: bytes | None) -> dict[str, Any]:
        _, content = self._request(method, f"{self._endpoint.rstrip('/')}/session", self._make_headers(), body)
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise UnreachableError("the response is not of a session")
        return answer

    def _make_headers(self) -> dict[str, str]:
        headers = dict(_HEADERS)
        if self._token:
            if not is_well_formed(self._token):
                raise UnreachableError("the token is not of the form of a token of a bus, so it was not sent")
            headers["Authorization"] = f"Bearer {self._token}"
        if self._session_key:
            headers["X-Bus-Session"] = self._session_key
        return headers

    def get_json(self) -> Any:
        """Fetch the JSON document at the endpoint, without the token.

        Raises:
            UnreachableError: there was no valid response.
        """
        _, body = self._request("GET", self._endpoint, {"User-Agent": _HEADERS["User-Agent"]}, None)
        try:
            return json.loads(body)
        except ValueError:
            raise UnreachableError("the response is not JSON") from None

    def _request(self, method: str, address: str, headers: dict[str, str], body: bytes | None) -> tuple[str, bytes]:
        is_new_connection = self._connection is None
        try:
            try:
                return self._request_once(method, address, headers, body)
            except (http.client.RemoteDisconnected, ConnectionError):
                if is_new_connection:
                    raise
                # The server may have closed the kept connection; a new one shows whether it is there.
                self._close()
                return self._request_once(method, address, headers, body)
        except UnreachableError:
            self._close()
            raise
        except Exception as error:
            self._close()
            raise UnreachableError(describe_error(error)) from error

    def _request_once(
        self, method: str, address: str, headers: dict[str, str], body: bytes | None
    ) -> tuple[str, bytes]:
        url = urlsplit(address)
        if self._connection is None:
            self._connection = _open_connection(self._endpoint, self._budget)
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        if self._connection.sock is not None:
            self._connection.sock.settimeout(max(0.01, self._budget.remaining()))
        self._connection.request(method, target, body=body, headers=headers)
        response = self._connection.getresponse()
        content = response.read(_MAX_RESPONSE_BYTES + 1)
        if len(content) > _MAX_RESPONSE_BYTES:
            raise UnreachableError("the response is too long")
        if response.length:
            # A read with a limit does not report a response that ended early.
            raise http.client.IncompleteRead(content, response.length)
        if response.will_close:
            self._close()
        if 300 <= response.status < 400:
            # Never followed: the token is only for the configured address.
            raise UnreachableError(f"the server redirects to {response.getheader('Location')!r}", response.status)
        if response.status != 200:
            raise UnreachableError(_describe_status(response.status, content), response.status)
        return (response.getheader("Content-Type") or "").lower(), content

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _open_connection(endpoint: str, budget: TimeBudget) -> http.client.HTTPConnection:
    url = urlsplit(endpoint)
    host, port = url.hostname or "", url.port
    timeout = max(0.01, budget.remaining())
    proxy = find_proxy(endpoint)
    if url.scheme != "https":
        return http.client.HTTPConnection(host, port, timeout=timeout)
    if proxy is None:
        return http.client.HTTPSConnection(host, port, timeout=timeout)
    proxy_url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    connection = http.client.HTTPSConnection(proxy_url.hostname or "", proxy_url.port or 80, timeout=timeout)
    credentials = _proxy_credentials(proxy_url.username, proxy_url.password)
    connection.set_tunnel(host, port or 443, headers=credentials)
    return connection


def _proxy_credentials(user: str | None, password: str | None) -> dict[str, str]:
    if not user:
        return {}
    import base64
    from urllib.parse import unquote

    pair = f"{unquote(user)}:{unquote(password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def find_proxy(endpoint: str) -> str | None:
    """Find the proxy that the environment or the system configures for an address; None for a direct connection."""
    url = urlsplit(endpoint)
    # A proxy would read the token of an address that is not encrypted.
    if url.scheme != "https" or is_loopback(endpoint):
        return None
    # urllib.request is slow to import; skip it where no proxy can be configured.
    if os.name == "posix" and not any(name.lower().endswith("_proxy") for name in os.environ) and not _is_macos():
        return None
    from urllib.request import getproxies, proxy_bypass

    proxy = getproxies().get(url.scheme)
    return None if not proxy or proxy_bypass(url.hostname or "") else proxy


def _is_macos() -> bool:
    return os.uname().sysname == "Darwin"


def _parse_tool_result(content_type: str, body: bytes) -> dict[str, Any]:
    """Parse the result of a tool from a JSON response or from a stream of events."""
    text = body.decode("utf-8", "replace")
    if content_type.startswith("text/event-stream"):
        text = "".join(line[5:] for line in text.splitlines() if line.startswith("data:"))
    elif not content_type.startswith("application/json"):
        media_type = one_line(content_type.split(";")[0], 80) or "of an unknown type"
        raise UnreachableError(f"the response is {media_type} instead of JSON")
    try:
        message = json.loads(text)
        if "error" in message:
            raise RefusedError(one_line(message["error"].get("message", "unknown error"), _MAX_ERROR_LENGTH))
        result = message["result"]
        result_text = result["content"][0]["text"]
        if result.get("isError"):
            raise RefusedError(one_line(result_text, _MAX_ERROR_LENGTH))
        content = json.loads(result_text)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise UnreachableError("the response is not a tool result") from None
    if not isinstance(content, dict):
        raise UnreachableError("the response is not a tool result")
    return content


def _describe_status(status: int, body: bytes) -> str:
    if status == 401:
        return "the token was refused (401): it is revoked, rotated or mistyped"
    if status == 403:
        if b"insufficient_scope" in body[:200]:
            return "the token does not allow this (403): it may only read, or not administer"
        is_suspended = b"suspended" in body[:200]
        return "the owner's account is suspended (403)" if is_suspended else "access was refused (403)"
    if status == NOT_FOUND:
        return "there is no bus at this address (404); it usually ends in /mcp"
    if status == 421:
        return "the server does not serve this host name (421)"
    if status == 429:
        return "too many calls (429)"
    return f"the response has HTTP status {status}"


def describe_error(error: BaseException) -> str:
    """Describe a network error in plain words."""
    import socket
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or 'no reason given'})"
    if isinstance(error, socket.gaierror):
        return "the host name cannot be resolved"
    if isinstance(error, (TimeoutError, socket.timeout)):
        return "the call timed out"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, http.client.IncompleteRead):
        return "the response is incomplete"
    if isinstance(error, (http.client.RemoteDisconnected, ConnectionError)):
        return "the server closed the connection"
    if isinstance(error, http.client.HTTPException):
        return "the response is not HTTP"
    if isinstance(error, UnicodeError):
        return "the token or the address contains a character that cannot be sent"
    return one_line(f"{type(error).__name__}: {error}", _MAX_ERROR_LENGTH)


BusCall = Callable[[BusClient], Any]


def call_in_parallel(
    endpoint: str,
    token: str | None,
    calls: Sequence[BusCall],
    budget: TimeBudget,
    max_threads: int = 4,
    session_key: str | None = None,
) -> list[Any | Exception]:
    """Run calls in threads with one connection each. Never raises, and never exceeds the budget.

    Args:
        session_key: the session for which the calls are; None for none.

    Returns:
        The result or the exception of each call, in order; UnreachableError for calls that the budget did not cover.
    """
    timeout_error = UnreachableError(f"the call timed out after {budget.seconds:.1f} s")
    results: list[Any | Exception] = [timeout_error] * len(calls)
    pending: queue.SimpleQueue[int] = queue.SimpleQueue()
    finished: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
    for index in range(len(calls)):
        pending.put(index)

    def run_calls() -> None:
        bus = BusClient(endpoint, token, budget, session_key)
        while budget.remaining():
            try:
                index = pending.get_nowait()
            except queue.Empty:
                return
            try:
                finished.put((index, calls[index](bus)))
            except Exception as error:
                finished.put((index, error))

    for _ in range(min(max_threads, len(calls))):
        threading.Thread(target=run_calls, daemon=True).start()
    for _ in calls:
        try:
            index, result = finished.get(timeout=max(0.001, budget.remaining()))
        except queue.Empty:
            break
        results[index] = result
    return results
