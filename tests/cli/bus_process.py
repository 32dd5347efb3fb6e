"""`llm-bus up` as a process, as a script would start it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.child_processes import find_processes
from tests.servers import make_traversable_folder

LLM_BUS_COMMAND = str(Path(sys.executable).parent / "llm-bus")
_BUS_VARIABLES = (
    "DATABASE_URL",
    "MIGRATION_DATABASE_URL",
    "REDIS_URL",
    "PUBLIC_URL",
    "MCP_URL",
    "LLM_BUS_DATA",
    "LLM_BUS_TOKEN",
    "PORT",
    "HOST",
)
PORT_NAMES = ("web", "gateway", "postgres", "redis")


class BusProcess:
    """A running `llm-bus up --json` and the line that it printed."""

    def __init__(self, data: Path, env: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [LLM_BUS_COMMAND, "up", "--json", "--data", str(data)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environ(env),
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            _, errors = self.process.communicate()
            raise AssertionError(f"`llm-bus up` ended with {self.process.returncode}: {errors}")
        self.startup_info: dict[str, Any] = json.loads(line)
        self.children = psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send the signal, wait for the end and return the exit code."""
        self.process.send_signal(number)
        try:
            self.process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return self.process.returncode

    def kill(self) -> None:
        """Kill it, as the out-of-memory killer does."""
        self.process.kill()
        self.process.communicate()

    def get_child(self, *words: str) -> psutil.Process:
        """Return the child whose command line contains all these words."""
        return find_processes(self.children, lambda child: all(word in " ".join(child.cmdline()) for word in words))[0]


def clean_environ(env: Mapping[str, str]) -> dict[str, str]:
    """The present environment without settings of a bus, and with `env`."""
    return {name: value for name, value in os.environ.items() if name not in _BUS_VARIABLES} | dict(env)


@contextmanager
def running_bus(data: Path, **env: str) -> Iterator[BusProcess]:
    """A bus in `data`, which is stopped when the block ends."""
    bus = BusProcess(data, env)
    try:
        yield bus
    finally:
        if bus.process.poll() is None:
            bus.stop()


@contextmanager
def temporary_data_folder() -> Iterator[Path]:
    """A data folder that does not exist yet and is removed afterwards."""
    parent = make_traversable_folder()
    try:
        yield parent / "data"
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def reserve_ports(data: Path) -> None:
    """Store ports in the folder that are free now and are not the defaults."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in PORT_NAMES]
    numbers = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    (data / "ports.json").write_text(json.dumps(dict(zip(PORT_NAMES, numbers, strict=True))))


def run_command(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `llm-bus` and wait for its end."""
    return subprocess.run(
        [LLM_BUS_COMMAND, *words], capture_output=True, text=True, env=clean_environ(env), timeout=150, check=False
    )


def wait_for_exit(children: list[psutil.Process], seconds: float = 10) -> list[psutil.Process]:
    """Return the processes that have not ended after so many seconds."""
    return psutil.wait_procs(children, timeout=seconds)[1]


def start_command(*words: str, **env: str) -> "subprocess.Popen[str]":
    """Start `llm-bus` with these words, for a command that runs until a signal."""
    return subprocess.Popen(
        [LLM_BUS_COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environ(env)
    )
