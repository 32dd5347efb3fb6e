"""Ports on the loopback interface, kept across restarts while they are free."""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

from cli.files import write_private

DEFAULT_PORTS = {"web": 8787, "gateway": 8788, "postgres": 54320, "redis": 63790}
_LOOPBACK_ADDRESS = "127.0.0.1"


def is_free(port: int) -> bool:
    """Return whether a server could listen on `port` now.

    Binding alone does not show it: on macOS a loopback address can be bound beside a wildcard address.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_LOOPBACK_ADDRESS, port))
        except OSError:
            return False
    with socket.socket() as client:
        client.settimeout(0.2)
        return client.connect_ex((_LOOPBACK_ADDRESS, port)) != 0


class PortAllocator:
    """The ports of one data folder, stored in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._assigned: dict[str, int] = _read_assignments(path)

    def assign(self, name: str, *, exclude: frozenset[int] = frozenset()) -> int:
        """Return the stored port of `name` if it is free; otherwise store and return another free port.

        Args:
            exclude: ports that looked free but turned out to be taken.
        """
        others = exclude | {port for owner, port in self._assigned.items() if owner != name}
        port = next(port for port in self._candidates(name) if port not in others and is_free(port))
        if self._assigned.get(name) != port:
            self._assigned[name] = port
            # On a full disk the ports are kept for this run only.
            with contextlib.suppress(OSError):
                write_private(self._path, json.dumps(self._assigned))
        return port

    def _candidates(self, name: str) -> Iterator[int]:
        if name in self._assigned:
            yield self._assigned[name]
        default = DEFAULT_PORTS.get(name, 8790)
        yield default
        # Ports near the default first, since people recognise them; finally any port that the kernel chooses.
        yield from range(default + 10, default + 500, 10)
        while True:
            with socket.socket() as any_port:
                any_port.bind((_LOOPBACK_ADDRESS, 0))
                yield int(any_port.getsockname()[1])


def _read_assignments(path: Path) -> dict[str, int]:
    try:
        stored = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(stored, dict):
        return {}
    return {str(name): port for name, port in stored.items() if isinstance(port, int) and 0 < port < 65536}
