"""Several gateway processes behind one listening socket, for machines with more than two cores.

The parent opens the socket and starts the children, which accept connections from it. While a child is replaced, its
siblings and the queue of the socket take new connections, so none is refused: neither when a child is killed, nor at
SIGHUP, which replaces the children one after the other, as after an update of the code.

Parent and child share a socket pair. A child reports on it that it serves, and ends when the parent's end is closed.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass

from bus.config.listening import bind_errors_end_the_start

# Set for a child: the numbers of the listening socket and of its end of the socket pair, and the path of the socket of
# its metrics, whose name is its place in the group.
LISTENER_VARIABLE, PARENT_VARIABLE = "LLM_BUS_LISTENER_FD", "LLM_BUS_PARENT_FD"
METRICS_SOCKET_VARIABLE = "LLM_BUS_METRICS_SOCKET"

_log = logging.getLogger(__name__)
_BACKLOG = 1024
# A child answers the calls in progress before it ends.
_STOP_SECONDS = 15.0
_MAX_RESTART_DELAY_SECONDS = 30.0
_READY = b"1"
_SIGNALS = frozenset({"SIGTERM", "SIGINT", "SIGHUP", "SIGCHLD"})


@dataclass
class _Child:
    place: int
    popen: "subprocess.Popen[bytes]"
    connection: socket.socket
    is_ready: bool = False

    def read_readiness(self) -> bool:
        """Return whether the child has reported that it serves."""
        if not self.is_ready:
            with contextlib.suppress(BlockingIOError):
                self.is_ready = self.connection.recv(1) == _READY
        return self.is_ready


class ProcessGroup:
    """The parent of the gateway processes.

    Args:
        count: how many children serve.
        host, port: where they listen.
        drain_seconds: how long a child still serves after SIGTERM.
        env: the environment of the children.
    """

    def __init__(self, count: int, host: str, port: int, drain_seconds: int, env: Mapping[str, str]) -> None:
        self._count = count
        self._env = env
        self._stop_seconds = drain_seconds + _STOP_SECONDS
        self._listener = open_listener(host, port)
        self._sockets_dir: str | None = None
        self._children: list[_Child] = []
        self._has_served = False
        self._restart_delay = 0.0
        self._restart_at = 0.0

    def run(self) -> int:
        """Keep the children running until SIGTERM or SIGINT; return the exit code of the process."""
        with contextlib.ExitStack() as stack:
            # On a full or read-only disk each child answers for itself.
            with contextlib.suppress(OSError):
                # A short name, as the path of a socket must be.
                self._sockets_dir = stack.enter_context(tempfile.TemporaryDirectory(prefix="llm-bus-"))
            return self._run()

    def _run(self) -> int:
        signals = {getattr(signal, name) for name in _SIGNALS}
        # Blocked signals are taken by sigtimedwait below, so that none arrives between two checks.
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        while True:
            code = self._replace_ended_children()
            if code is not None:
                self._stop_children(self._children)
                return code
            received = signal.sigtimedwait(signals, 0.2)
            if received is None or received.si_signo == signal.SIGCHLD:
                continue
            if received.si_signo == signal.SIGHUP:
                self._replace_children_in_turn()
                continue
            self._stop_children(self._children)
            return 0

    def _replace_ended_children(self) -> int | None:
        """Start the children that are missing; return an exit code if none has ever served."""
        # Before any child is judged: that one serves outweighs that another ended before it did.
        if any(child.read_readiness() for child in self._children):
            self._has_served = True
            self._restart_delay = 0.0
        for child in list(self._children):
            code = child.popen.poll()
            if code is None:
                continue
            self._forget(child)
            if not self._has_served:
                # Settings that are wrong now are wrong in the next attempt.
                return code if code > 0 else 1
            _log.error("gateway process %d ended with code %d; starting another", child.popen.pid, code)
            self._restart_at = time.monotonic() + self._restart_delay
            self._restart_delay = min(_MAX_RESTART_DELAY_SECONDS, max(1.0, 2 * self._restart_delay))
        missing = sorted(set(range(self._count)) - {child.place for child in self._children})
        if time.monotonic() >= self._restart_at:
            self._children += [self._start_child(place) for place in missing]
        return None

    def _replace_children_in_turn(self) -> None:
        """Start a new child for each present one, and stop the old one once the new one serves."""
        for old in list(self._children):
            new = self._start_child(old.place)
            self._children.append(new)
            while not new.read_readiness():
                if new.popen.poll() is not None:
                    _log.error("the new gateway process ended with code %d; the others go on", new.popen.returncode)
                    self._forget(new)
                    return
                time.sleep(0.05)
            # Its siblings go on, so this child stops without a drain, in which health checks of the group could fail.
            old.connection.close()
            old.popen.terminate()
            self._wait_until_ended([old], _STOP_SECONDS)

    def _start_child(self, place: int) -> _Child:
        parent_end, child_end = socket.socketpair()
        parent_end.setblocking(False)
        with child_end:
            fds = (self._listener.fileno(), child_end.fileno())
            metrics_socket = (
                {METRICS_SOCKET_VARIABLE: os.path.join(self._sockets_dir, str(place))} if self._sockets_dir else {}
            )
            popen = subprocess.Popen(
                [sys.executable, "-m", "mcp_gateway"],
                env={**self._env, LISTENER_VARIABLE: str(fds[0]), PARENT_VARIABLE: str(fds[1]), **metrics_socket},
                pass_fds=fds,
                # This process has one thread, so that code may run between fork and exec.
                preexec_fn=_unblock_signals,
            )
        return _Child(place, popen, parent_end)

    def _stop_children(self, children: list[_Child]) -> None:
        for child in children:
            child.popen.terminate()
        self._wait_until_ended(children, self._stop_seconds)

    def _wait_until_ended(self, children: list[_Child], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for child in list(children):
            try:
                child.popen.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.popen.kill()
                child.popen.wait()
            self._forget(child)

    def _forget(self, child: _Child) -> None:
        child.connection.close()
        self._children.remove(child)


def open_listener(host: str, port: int) -> socket.socket:
    """Listen on an address; exit with one line on standard error if that is not possible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with bind_errors_end_the_start("gateway", host, port):
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    os.set_inheritable(listener.fileno(), True)
    return listener


def take_listener(env: Mapping[str, str]) -> socket.socket | None:
    """Return the listening socket of the parent; None if this process is no child."""
    number = env.get(LISTENER_VARIABLE)
    return None if number is None else socket.socket(fileno=int(number))


class ParentConnection:
    """A child's end of the socket pair.

    Args:
        env: the environment of this process.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        number = env.get(PARENT_VARIABLE)
        self._socket = None if number is None else socket.socket(fileno=int(number))
        if self._socket is not None:
            self._socket.setblocking(False)

    def report_ready(self) -> None:
        """Tell the parent that this process serves."""
        if self._socket is not None:
            self._socket.send(_READY)

    async def wait_until_closed(self) -> None:
        """Return when the parent has ended; never in a process without a parent."""
        loop = asyncio.get_running_loop()
        if self._socket is None:
            await loop.create_future()
        else:
            # The parent never sends anything.
            await loop.sock_recv(self._socket, 1)


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
