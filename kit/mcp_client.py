"""Calls of the bus within a budget: one deadline for all of them, whatever the network does meanwhile.

Each call runs in a daemon thread, since neither a look-up of a name nor a server that sends a byte a second can be
given a deadline from inside. Whoever uses this ends with os._exit, which waits for no thread.
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

_MAX_RESPONSE_BYTES = 4 * 1024 * 1024
_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
    "User-Agent": f"llm-bus-kit/{VERSION}",
    # Each call stands alone, as the service allows: no session, no handshake, one round trip.
    "MCP-Protocol-Version": "2025-06-18",
}


class UnreachableError(Exception):
    """The bus did not answer as the bus does; `status` is its HTTP status, if it came to that."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class RefusedError(Exception):
    """The bus answered with a refusal: one sentence that says what to do."""


class TimeBudget:
    """So many seconds for everything."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._deadline = time.monotonic() + seconds

    def remaining(self) -> float:
        return max(0.0, self._deadline - time.monotonic())


class BusClient:
    """One connection to the bus, for one thread."""

    def __init__(self, endpoint: str, token: str | None, budget: TimeBudget) -> None:
        self._endpoint = endpoint
        self._token = token
        self._budget = budget
        self._connection: http.client.HTTPConnection | None = None

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """What a tool answers.

        Raises:
            RefusedError: the bus says no.
            UnreachableError: it did not answer, or something else did.
        """
        message = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": tool, "arguments": arguments},
        }
        headers = dict(_HEADERS)
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        kind, body = self._request("POST", headers, json.dumps(message).encode())
        return _parse_tool_result(kind, body)

    def get_json(self) -> Any:
        """The JSON at this address, without the token."""
        _, body = self._request("GET", {"User-Agent": _HEADERS["User-Agent"]}, None)
        try:
            return json.loads(body)
        except ValueError:
            raise UnreachableError("it answered with something that is not JSON") from None

    def _request(self, method: str, headers: dict[str, str], body: bytes | None) -> tuple[str, bytes]:
        fresh = self._connection is None
        try:
            try:
                return self._request_once(method, headers, body)
            except (http.client.RemoteDisconnected, ConnectionError):
                if fresh:
                    raise
                # The server may close a connection that was kept; a new one says more.
                self._close()
                return self._request_once(method, headers, body)
        except UnreachableError:
            self._close()
            raise
        except Exception as error:
            self._close()
            raise UnreachableError(describe_error(error)) from error

    def _request_once(self, method: str, headers: dict[str, str], body: bytes | None) -> tuple[str, bytes]:
        where = urlsplit(self._endpoint)
        if self._connection is None:
            self._connection = _open_connection(self._endpoint, self._budget)
        target = (where.path or "/") + (f"?{where.query}" if where.query else "")
        if getattr(self._connection, "absolute", False):
            target = f"{where.scheme}://{where.netloc}{target}"
        if self._connection.sock is not None:
            self._connection.sock.settimeout(max(0.01, self._budget.remaining()))
        self._connection.request(method, target, body=body, headers=headers)
        answer = self._connection.getresponse()
        said = answer.read(_MAX_RESPONSE_BYTES + 1)
        if len(said) > _MAX_RESPONSE_BYTES:
            raise UnreachableError("its answer is too long")
        if answer.length:
            # With a limit, http.client says nothing of an end that came early.
            raise http.client.IncompleteRead(said, answer.length)
        if answer.will_close:
            self._close()
        if 300 <= answer.status < 400:
            # Never followed: the token is for the address that was configured.
            raise UnreachableError(f"it redirects to {answer.getheader('Location')!r}", answer.status)
        if answer.status != 200:
            raise UnreachableError(_describe_status(answer.status, said), answer.status)
        return (answer.getheader("Content-Type") or "").lower(), said

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _open_connection(endpoint: str, budget: TimeBudget) -> http.client.HTTPConnection:
    where = urlsplit(endpoint)
    host, port = where.hostname or "", where.port
    timeout = max(0.01, budget.remaining())
    proxy = find_proxy(endpoint)
    secure = where.scheme == "https"
    kind: Callable[..., http.client.HTTPConnection] = (
        http.client.HTTPSConnection if secure else http.client.HTTPConnection
    )
    if proxy is None:
        return kind(host, port, timeout=timeout)
    through = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    connection = kind(through.hostname or "", through.port or 80, timeout=timeout)
    credentials = _proxy_credentials(through.username, through.password)
    if secure:
        connection.set_tunnel(host, port or 443, headers=credentials)
    else:
        connection.absolute = True  # type: ignore[attr-defined]
    return connection


def _proxy_credentials(user: str | None, password: str | None) -> dict[str, str]:
    if not user:
        return {}
    import base64
    from urllib.parse import unquote

    pair = f"{unquote(user)}:{unquote(password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def find_proxy(endpoint: str) -> str | None:
    """The proxy that the environment or the system names for this address; None for none."""
    where = urlsplit(endpoint)
    if where.hostname in ("localhost", "127.0.0.1", "::1"):
        return None
    # Slow to import, and needed only where a proxy may be configured.
    if os.name == "posix" and not any(name.lower().endswith("_proxy") for name in os.environ) and not _is_macos():
        return None
    from urllib.request import getproxies, proxy_bypass

    found = getproxies().get(where.scheme)
    return None if not found or proxy_bypass(where.hostname or "") else found


def _is_macos() -> bool:
    return os.uname().sysname == "Darwin"


def _parse_tool_result(content_type: str, body: bytes) -> dict[str, Any]:
    """What the tool said, whether it came as JSON or as a stream of events."""
    text = body.decode("utf-8", "replace")
    if content_type.startswith("text/event-stream"):
        text = "".join(line[5:] for line in text.splitlines() if line.startswith("data:"))
    elif not content_type.startswith("application/json"):
        raise UnreachableError(f"it answered with {content_type.split(';')[0] or 'something'} instead of JSON")
    try:
        message = json.loads(text)
        if "error" in message:
            raise RefusedError(str(message["error"].get("message", "unknown error")))
        result = message["result"]
        said = result["content"][0]["text"]
        if result.get("isError"):
            raise RefusedError(str(said))
        found = json.loads(said)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise UnreachableError("it answered with something that is no answer of a tool") from None
    if not isinstance(found, dict):
        raise UnreachableError("it answered with something that is no answer of a tool")
    return found


def _describe_status(status: int, body: bytes) -> str:
    if status == 401:
        return "it does not accept the token (401): revoked, rotated or mistyped"
    if status == 403:
        said = body[:200].decode("utf-8", "replace")
        return "the owner's account is suspended (403)" if "suspended" in said else "it refuses us (403)"
    if status == 404:
        return "there is no bus at this address (404); it usually ends in /mcp"
    if status == 421:
        return "it does not serve this host name (421)"
    if status == 429:
        return "too many calls (429)"
    return f"it answered with HTTP {status}"


def describe_error(error: BaseException) -> str:
    """A failure of the network in words."""
    import socket
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or 'no reason given'})"
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(error, (TimeoutError, socket.timeout)):
        return "it did not answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, http.client.IncompleteRead):
        return "its answer broke off"
    if isinstance(error, (http.client.RemoteDisconnected, ConnectionError)):
        return "it closed the connection"
    if isinstance(error, http.client.HTTPException):
        return "what it answered is not HTTP"
    if isinstance(error, UnicodeError):
        return "the token or the address holds a character that cannot be sent"
    return f"{type(error).__name__}: {error}"


BusCall = Callable[[BusClient], Any]


def call_in_parallel(
    endpoint: str, token: str | None, calls: Sequence[BusCall], budget: TimeBudget, max_threads: int = 4
) -> list[Any | Exception]:
    """Run the jobs, each with a connection of its thread, and give their results in order.

    What is not done when the budget ends is an UnreachableError. Never raises, and never takes longer.
    """
    late = UnreachableError(f"it did not answer within {budget.seconds:.1f} s")
    results: list[Any | Exception] = [late] * len(calls)
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
    for number in range(len(calls)):
        waiting.put(number)

    def work() -> None:
        bus = BusClient(endpoint, token, budget)
        while budget.remaining():
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((number, calls[number](bus)))
            except Exception as error:
                done.put((number, error))

    for _ in range(min(max_threads, len(calls))):
        threading.Thread(target=work, daemon=True).start()
    for _ in calls:
        try:
            number, result = done.get(timeout=max(0.001, budget.remaining()))
        except queue.Empty:
            break
        results[number] = result
    return results
