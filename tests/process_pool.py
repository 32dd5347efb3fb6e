"""Processes of the service for tests, forked from one that has imported everything: a start costs milliseconds of CPU.

A run starts more than a hundred gateways and workers, and importing the MCP SDK and Celery takes each of them seconds.
What runs is the entry point that `python -m` runs, in a process of its own, with its own environment, output and
signals. `llm-bus up` and `llm-bus serve` are tested as they are started everywhere.
"""

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import IO, Any

_PRELOADED_MODULES = ("mcp_gateway", "workers")
_MAX_MESSAGE_BYTES = 1 << 20
_lock = threading.Lock()
_fork_server: "tuple[subprocess.Popen[bytes], socket.socket] | None" = None


class ForkedProcess:
    """A process that was forked, as far as tests use a `subprocess.Popen`."""

    def __init__(self, pid: int, status_fd: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status_fd = status_fd

    def poll(self) -> int | None:
        """Its exit code, or None while it runs; minus the signal that killed it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        if self.returncode is None:
            if not select.select([self._status_fd], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            said = os.read(self._status_fd, 16)
            os.close(self._status_fd)
            # Nothing is said where the one that it was forked from is gone.
            self.returncode = int(said) if said else -signal.SIGKILL
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self.send_signal(signal.SIGKILL)


def start_module(
    module: str, *words: str, env: Mapping[str, str], output: IO[bytes]
) -> "subprocess.Popen[bytes] | ForkedProcess":
    """Start `python -m module words` with this environment; its output goes to `output`."""
    if sys.platform != "linux":
        command = [sys.executable, "-m", module, *words]
        return subprocess.Popen(command, env=dict(env), stdout=output, stderr=subprocess.STDOUT)
    ours, theirs = os.pipe()
    with _lock:
        control = _get_fork_server()
        asked = json.dumps({"module": module, "words": words, "env": dict(env)}).encode()
        socket.send_fds(control, [asked], [output.fileno(), theirs])
        os.close(theirs)
        answer = control.recv(32)
    assert answer, "the process that others are forked from has ended; its error is above"
    return ForkedProcess(int(answer), ours)


def _get_fork_server() -> socket.socket:
    global _fork_server
    if _fork_server is None or _fork_server[0].poll() is not None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_MESSAGE_BYTES)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.process_pool", str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        _fork_server = (process, ours)
        # It ends when nobody holds the other end any more.
        atexit.register(_stop_fork_server, process, ours)
    return _fork_server[1]


def _stop_fork_server(process: "subprocess.Popen[bytes]", control: socket.socket) -> None:
    control.close()
    process.wait(30)


def _run_fork_server(control: socket.socket) -> None:
    """Fork whatever is asked for, and say how each ended, until nobody asks any more."""
    mains = {name: __import__(f"{name}.__main__", fromlist=["main"]) for name in _PRELOADED_MODULES}
    assert threading.active_count() == 1, "what is forked beside other threads may hold their locks for ever"
    running: dict[int, int] = {}
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Ctrl-C in a terminal reaches the whole group; the end of the run is told by the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
            _reap_children(running)
        if control in ready:
            asked, fds, _, _ = socket.recv_fds(control, _MAX_MESSAGE_BYTES, 2)
            if not asked:
                break
            output, status = fds
            pid = os.fork()
            if pid == 0:
                for one in (control.fileno(), woken, waker, status, *running.values()):
                    os.close(one)
                _run_child(mains, json.loads(asked), output)
            os.close(output)
            running[pid] = status
            control.send(str(pid).encode())
    for pid in running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _reap_children(running: dict[int, int]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        pipe = running.pop(pid)
        with contextlib.suppress(BrokenPipeError):
            os.write(pipe, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(pipe)


def _run_child(mains: Mapping[str, Any], request: dict[str, Any], output_fd: int) -> None:
    """Be the process that was asked for, to its end."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.default_int_handler)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output_fd, 1)
    os.dup2(output_fd, 2)
    os.close(output_fd)
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = [request["module"], *request["words"]]
    code = 1
    try:
        mains[request["module"]].main()
        code = 0
    except SystemExit as told:
        code = told.code if isinstance(told.code, int) else int(told.code is not None)
        if isinstance(told.code, str):
            print(told.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - said and answered with 1, as the interpreter does
        traceback.print_exc()
    finally:
        # As the interpreter ends: threads first, then what was registered, then what is still in a buffer.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _run_fork_server(socket.socket(fileno=int(sys.argv[1])))
