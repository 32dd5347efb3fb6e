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

from tests.servers import make_open_folder

LLM_BUS = str(Path(sys.executable).parent / "llm-bus")
_OURS = (
    "DATABASE_URL",
    "REDIS_URL",
    "PUBLIC_URL",
    "MCP_URL",
    "LLM_BUS_DATA",
    "LLM_BUS_TOKEN",
    "PORT",
    "HOST",
)
PORTS = ("web", "gateway", "postgres", "redis")


class Bus:
    """One `llm-bus up --json`, with what it said."""

    def __init__(self, data: Path, env: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [LLM_BUS, "up", "--json", "--data", str(data)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(env),
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            _, said = self.process.communicate()
            raise AssertionError(f"`llm-bus up` ended with {self.process.returncode}: {said}")
        self.said: dict[str, Any] = json.loads(line)
        self.children = psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ask it to end; returns its exit code."""
        self.process.send_signal(number)
        try:
            self.process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return self.process.returncode

    def kill(self) -> None:
        """End it as the out-of-memory killer does."""
        self.process.kill()
        self.process.communicate()

    def child(self, *words: str) -> psutil.Process:
        """The child whose command line has all these words."""
        return next(child for child in self.children if all(word in " ".join(child.cmdline()) for word in words))


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """Ours without the settings of a bus, and with `env`."""
    return {name: value for name, value in os.environ.items() if name not in _OURS} | dict(env)


@contextmanager
def bus(data: Path, **env: str) -> Iterator[Bus]:
    """A bus in `data`, which is ended afterwards if the test has not done so."""
    started = Bus(data, env)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.stop()


@contextmanager
def data_folder() -> Iterator[Path]:
    """A data folder that does not exist yet; what is in it is removed afterwards."""
    above = make_open_folder()
    try:
        yield above / "data"
    finally:
        shutil.rmtree(above, ignore_errors=True)


def reserve_ports(data: Path) -> None:
    """Let the bus of this folder remember ports that are free now, away from the defaults."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    numbers = [listener.getsockname()[1] for listener in held]
    for listener in held:
        listener.close()
    (data / "ports.json").write_text(json.dumps(dict(zip(PORTS, numbers, strict=True))))


def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """One command of `llm-bus`, to its end."""
    return subprocess.run(
        [LLM_BUS, *words], capture_output=True, text=True, env=environment(env), timeout=60, check=False
    )


def remaining(children: list[psutil.Process], seconds: float = 10) -> list[psutil.Process]:
    """Those that have not ended after so many seconds."""
    return psutil.wait_procs(children, timeout=seconds)[1]
