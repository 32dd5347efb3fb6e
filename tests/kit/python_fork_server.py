"""Fork server of `warm_python.py`: `python -I python_fork_server.py FOLDER`, for each interpreter of the kit.

It runs the kit for the launchers that write their process id to FOLDER/requests. A fork has arguments, environment,
work folder, standard streams and exit code of its launcher, and no module of the kit: it imports those of the copy that
the launcher names. Only the standard library is loaded, and compiled code is shared by files of the same content.

The kit's time limits are longer in a fork, since a loaded machine exceeds them; an environment with the variable
`TIME_LIMITS_VARIABLE` keeps them.

Standard library of Python 3.9 alone; Linux alone, for /proc. The server ends when its standard input is closed.
"""

import atexit
import gc
import importlib.machinery
import os
import re
import select
import signal
import sys
import threading
import traceback
import types
from contextlib import suppress
from pathlib import Path

# What the kit imports; importing this takes two thirds of a hook's time.
_PRELOADED_MODULES = (
    "argparse, base64, collections, contextlib, dataclasses, datetime, functools, getpass, glob, hashlib, http.client, "
    "itertools, json, pathlib, queue, re, secrets, shlex, shutil, socket, ssl, stat, subprocess, tempfile, time, "
    "tomllib, typing, urllib.parse, urllib.request, zlib"
)
_KIT_FOLDER = Path(__file__).resolve().parent.parent.parent / "kit"
_USE_NEW_INTERPRETER = "new"
# None of Python where the run was started in the background of a shell.
_INITIAL_SIGINT_HANDLER = signal.getsignal(signal.SIGINT)
# Where the launcher keeps standard input, output and error for the fork.
_LAUNCHER_STREAMS = (4, 5, 2)
TIME_LIMITS_VARIABLE = "LLM_BUS_TEST_TIME_LIMITS"
_LONGER_TIME_LIMITS = {
    "edit_notice.py": {"TIME_LIMIT_SECONDS": 30.0},
    "numbers_in_use.py": {"_HISTORY_SECONDS": 10.0},
    "precommit.py": {"TIME_LIMIT_SECONDS": 30.0, "_VERSION_TIMEOUT_SECONDS": 10.0},
    "watchdog.py": {"LIMIT_SECONDS": 50.0, "CPU_LIMIT_SECONDS": 15.0},
}


class UnsupportedRequestError(Exception):
    """Only a new interpreter does what the launcher's environment or its streams require."""


class Request:
    """What a fork takes over from its launcher."""

    def __init__(self, pid: int) -> None:
        process = f"/proc/{pid}"
        command = Path(process, "cmdline").read_bytes().split(b"\0")[:-1]
        # The shell and its script come first.
        self.arguments = [os.fsdecode(argument) for argument in command[2:]]
        variables = Path(process, "environ").read_bytes().split(b"\0")
        self.environ = dict(variable.split(b"=", 1) for variable in variables if b"=" in variable)
        if self.environ.get(b"LANG") != b"C.UTF-8" or any(
            name.startswith((b"PYTHON", b"LC_")) for name in self.environ
        ):
            raise UnsupportedRequestError
        self.fds: list[int] = []
        try:
            self.fds.append(os.open(f"{process}/cwd", os.O_RDONLY | os.O_DIRECTORY))
            for fd in _LAUNCHER_STREAMS:
                flags = os.O_WRONLY | os.O_APPEND if self.fds[1:] else os.O_RDONLY
                self.fds.append(os.open(f"{process}/fd/{fd}", flags))
                if os.isatty(self.fds[-1]):
                    raise UnsupportedRequestError
        except OSError as error:
            self.close()
            raise UnsupportedRequestError from error
        except UnsupportedRequestError:
            self.close()
            raise

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)

    def apply(self) -> None:
        """Make this process the one that was requested."""
        folder_fd, *stream_fds = self.fds
        os.fchdir(folder_fd)
        for fd, stream_fd in enumerate(stream_fds):
            os.dup2(stream_fd, fd)
        self.close()
        os.environb.clear()
        os.environb.update(self.environ)


def main() -> None:
    """Fork the requested processes and report their exit codes, until standard input is closed."""
    folder = Path(sys.argv[1])
    _preload()
    assert threading.active_count() == 1, "a fork beside other threads may inherit locks that are never released"
    requests_fd = os.open(folder / "requests", os.O_RDWR | os.O_CLOEXEC)
    wakeup_read, wakeup_write = os.pipe()
    for fd in (wakeup_read, wakeup_write):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(wakeup_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Ctrl-C in a terminal reaches the whole process group; this process ends with its standard input instead.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    launchers: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([0, requests_fd, wakeup_read], [], [])
        if wakeup_read in ready:
            with suppress(BlockingIOError):
                os.read(wakeup_read, 4096)
            _report_exits(folder, launchers)
        if requests_fd in ready:
            for line in os.read(requests_fd, 65536).split():
                _start(folder, launchers, int(line), (requests_fd, wakeup_read, wakeup_write))
        if 0 in ready:
            break
    for pid in launchers:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _preload() -> None:
    for name in _PRELOADED_MODULES.split(","):
        with suppress(ImportError):
            __import__(name.strip())
    codes = {}
    longer_codes = {}
    for path in _KIT_FOLDER.glob("*.py"):
        content = path.read_bytes()
        codes[content] = importlib.machinery.SourceFileLoader(path.stem, str(path)).get_code(path.stem)
        if path.name in _LONGER_TIME_LIMITS:
            longer_codes[content] = compile(_lengthen(path.name, content.decode()), str(path), "exec")
    compile_source = importlib.machinery.SourceFileLoader.source_to_code

    def source_to_code(self, data, path, **options):  # type: ignore[no-untyped-def]
        code = None if TIME_LIMITS_VARIABLE in os.environ else longer_codes.get(data)
        return code or codes.get(data) or compile_source(self, data, path, **options)

    importlib.machinery.SourceFileLoader.source_to_code = source_to_code  # type: ignore[method-assign]
    sys.dont_write_bytecode = True
    gc.collect()
    gc.freeze()


def _lengthen(name: str, source: str) -> str:
    for constant, seconds in _LONGER_TIME_LIMITS[name].items():
        source, count = re.subn(rf"^{constant} = .*$", f"{constant} = {seconds}", source, flags=re.MULTILINE)
        assert count == 1, (name, constant)
    return source


def _start(folder: Path, launchers: "dict[int, int]", launcher: int, own_fds: "tuple[int, ...]") -> None:
    try:
        request = Request(launcher)
    except (OSError, UnsupportedRequestError):
        _reply(folder, launcher, _USE_NEW_INTERPRETER)
        return
    pid = os.fork()
    if pid == 0:
        for fd in own_fds:
            os.close(fd)
        _run_child(request)
    launchers[pid] = launcher
    request.close()


def _report_exits(folder: Path, launchers: "dict[int, int]") -> None:
    while launchers:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        _reply(folder, launchers.pop(pid), str(code))


def _reply(folder: Path, launcher: int, text: str) -> None:
    path = folder / str(launcher)
    # A killed launcher no longer reads.
    with suppress(OSError):
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        os.write(fd, f"{text}\n".encode())
        os.close(fd)
    path.unlink()


def _run_child(request: Request) -> None:
    """Run the kit as the interpreter runs a file or a folder, then exit."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, _INITIAL_SIGINT_HANDLER)
    request.apply()
    code = 1
    try:
        _run(request.arguments)
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


def _run(arguments: "list[str]") -> None:
    is_isolated = arguments[0] == "-I"
    sys.argv = arguments[1:] if is_isolated else arguments
    path = sys.argv[0]
    if path == "-c":
        del sys.argv[1]
        sys.modules["__main__"] = module = types.ModuleType("__main__")
        exec(arguments[2], module.__dict__)
        return
    if os.path.isdir(path):
        sys.path.insert(0, path)
        path = os.path.join(path, "__main__.py")
    elif not is_isolated:
        sys.path.insert(0, os.path.dirname(path))
    code = importlib.machinery.SourceFileLoader("__main__", path).get_code("__main__")
    assert code is not None
    module = types.ModuleType("__main__")
    module.__file__ = path
    sys.modules["__main__"] = module
    exec(code, module.__dict__)


if __name__ == "__main__":
    main()
