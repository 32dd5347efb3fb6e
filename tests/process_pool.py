"""Service processes for tests, forked from a preloaded process: a start costs milliseconds of CPU.

A run starts more than a hundred gateways and workers, and each would need seconds to import the MCP SDK and Celery.
Each fork runs the entry point of `python -m`, with its own environment, output and signals. Tests of `llm-bus up` and
`llm-bus serve` start them as users do.
"""

import atexit
import contextlib
import gc
import importlib
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

_SERVICES = ("mcp_gateway", "workers")
_IMPORTED_BY_MAIN = (
    "mcp_gateway.app",
    "uvloop",
    "anyio._backends._asyncio",
    "workers.jobs.credits",
    "workers.jobs.maintenance",
    "workers.jobs.outbox",
    "workers.jobs.per_project",
    "celery.bin.celery",
    "celery.app.trace",
    "celery.apps.beat",
    "celery.apps.worker",
    "celery.concurrency.thread",
    "celery.contrib.migrate",
    "celery.fixups.django",
    "celery.loaders.app",
    "celery.worker.components",
    "celery.worker.consumer",
)
"""What a `main` imports when it is called. Each child would do it again, for up to a second of CPU."""
_MAX_IMPORTS = 60
_MAX_MESSAGE_BYTES = 1 << 20
_lock = threading.Lock()
_fork_server: "tuple[subprocess.Popen[bytes], socket.socket] | None" = None


class ForkedProcess:
    """A forked process with the part of `subprocess.Popen` that tests use."""

    def __init__(self, pid: int, status_fd: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status_fd = status_fd

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs; a negative code is the signal that killed it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the process ends.

        Raises:
            subprocess.TimeoutExpired: the process still runs.
        """
        if self.returncode is None:
            if not select.select([self._status_fd], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            status = os.read(self._status_fd, 16)
            os.close(self._status_fd)
            # The status is empty if the fork server has ended.
            self.returncode = int(status) if status else -signal.SIGKILL
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if the process still runs."""
        if self.poll() is None:
            # Its fork server may have seen its end already, and the status be on the way.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Request a graceful stop."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process, as a crash would."""
        self.send_signal(signal.SIGKILL)


def start_module(
    module: str,
    *arguments: str,
    env: Mapping[str, str],
    output: IO[bytes],
    constants: Mapping[str, float] | None = None,
) -> "subprocess.Popen[bytes] | ForkedProcess":
    """Start `python -m module arguments` with this environment; the output goes to `output`.

    Args:
        constants: other values for constants of modules, such as `mcp_gateway.mcp_endpoint._PING_INTERVAL_SECONDS`.
    """
    if sys.platform != "linux":
        request = {"module": module, "arguments": arguments, "constants": dict(constants or {})}
        command = [sys.executable, "-m", "tests.process_pool", json.dumps(request)]
        return subprocess.Popen(command, env=dict(env), stdout=output, stderr=subprocess.STDOUT)
    status_fd, child_status_fd = os.pipe()
    with _lock:
        control = _get_fork_server()
        request = {"module": module, "arguments": arguments, "constants": dict(constants or {}), "env": dict(env)}
        socket.send_fds(control, [json.dumps(request).encode()], [output.fileno(), child_status_fd])
        os.close(child_status_fd)
        pid = control.recv(32)
    assert pid, "the fork server has ended; its error is above"
    return ForkedProcess(int(pid), status_fd)


def _get_fork_server() -> socket.socket:
    global _fork_server
    if _fork_server is None or _fork_server[0].poll() is not None:
        control, server_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_MESSAGE_BYTES)
        with server_end:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.process_pool", str(server_end.fileno())], pass_fds=[server_end.fileno()]
            )
        _fork_server = (process, control)
        # The fork server ends when the control socket is closed.
        atexit.register(_stop_fork_server, process, control)
    return _fork_server[1]


def _stop_fork_server(process: "subprocess.Popen[bytes]", control: socket.socket) -> None:
    control.close()
    process.wait(30)


def _run_fork_server(control: socket.socket) -> None:
    """Fork the requested processes and report their exit codes, until the control socket is closed."""
    mains = {name: importlib.import_module(f"{name}.__main__") for name in _SERVICES}
    for name in _IMPORTED_BY_MAIN:
        importlib.import_module(name)
    # The collector of a child neither visits what was imported here nor copies its pages.
    gc.collect()
    gc.freeze()
    assert threading.active_count() == 1, "a fork beside other threads may inherit locks that are never released"
    running: dict[int, int] = {}
    wakeup_read, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    os.set_blocking(wakeup_read, False)
    signal.set_wakeup_fd(wakeup_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Ctrl-C in a terminal reaches the whole process group; this process ends with the socket instead.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([control.fileno(), wakeup_read], [], [])
        if wakeup_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wakeup_read, 4096)
            _reap_children(running)
        if control.fileno() in ready:
            request, fds, _, _ = socket.recv_fds(control, _MAX_MESSAGE_BYTES, 2)
            if not request:
                break
            output_fd, status_fd = fds
            pid = os.fork()
            if pid == 0:
                for fd in (control.fileno(), wakeup_read, wakeup_write, status_fd, *running.values()):
                    os.close(fd)
                _run_child(mains, json.loads(request), output_fd)
            os.close(output_fd)
            running[pid] = status_fd
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
        status_fd = running.pop(pid)
        with contextlib.suppress(BrokenPipeError):
            os.write(status_fd, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(status_fd)


def _run_child(mains: Mapping[str, Any], request: dict[str, Any], output_fd: int) -> None:
    """Run the requested module in the forked process, then exit."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.default_int_handler)
    null_fd = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null_fd, 0)
    os.dup2(output_fd, 1)
    os.dup2(output_fd, 2)
    os.close(output_fd)
    os.environ.clear()
    os.environ.update(request["env"])
    code = 1
    preloaded = frozenset(sys.modules)
    try:
        _run_main(mains[request["module"]], request)
        _check_imports(preloaded)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - printed, and reported as exit code 1, as the interpreter does
        traceback.print_exc()
    finally:
        # In the order of the interpreter: threads, then exit functions, then buffers.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _check_imports(preloaded: frozenset[str]) -> None:
    imported = sorted(sys.modules.keys() - preloaded)
    if len(imported) > _MAX_IMPORTS:
        raise AssertionError(f"add to _IMPORTED_BY_MAIN what each start imports again: {', '.join(imported)}")


def _run_main(main_module: Any, request: dict[str, Any]) -> None:
    for name, value in request["constants"].items():
        module_name, _, constant = name.rpartition(".")
        module = importlib.import_module(module_name)
        assert hasattr(module, constant), name
        setattr(module, constant, value)
    sys.argv = [request["module"], *request["arguments"]]
    main_module.main()


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        _run_fork_server(socket.socket(fileno=int(sys.argv[1])))
    else:
        alone = json.loads(sys.argv[1])
        _run_main(importlib.import_module(f"{alone['module']}.__main__"), alone)
