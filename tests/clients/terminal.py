"""A client in a terminal of its own."""

import os
import pty
import re
import signal
import subprocess
import termios
import threading
from collections.abc import Mapping
from pathlib import Path

from tests.concurrency import wait_until

_TIMEOUT_SECONDS = 90.0
_STOP_SECONDS = 10.0
_ROWS, _COLUMNS = 50, 200
_CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-9;?<>=]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[=>()78]")


class Terminal:
    """A program in a terminal, whose output is read and kept."""

    def __init__(self, command: list[str], folder: Path, env: Mapping[str, str]) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (_ROWS, _COLUMNS))
        self._output = bytearray()
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env={**env, "TERM": "xterm-256color", "COLUMNS": str(_COLUMNS), "LINES": str(_ROWS)},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        except ProcessLookupError:
            self._process.wait()
        self._reading.join(_STOP_SECONDS)
        os.close(self._master)

    def describe(self) -> str:
        """Return the end of the output."""
        return self._output[-3000:].decode("utf-8", "replace")

    def type(self, keys: str, pattern: str) -> None:
        """Send keys, and wait until the terminal shows what matches the pattern afterwards."""
        start = len(self._output)
        os.write(self._master, keys.encode())
        self.wait_for(pattern, start)

    def wait_for(self, pattern: str, start: int = 0) -> None:
        """Wait until the output matches; `start` leaves out its first bytes."""

        def is_shown() -> bool:
            text = _CONTROL_SEQUENCE.sub("", self._output[start:].decode("utf-8", "replace"))
            return re.search(pattern, text, re.MULTILINE) is not None

        wait_until(is_shown, _TIMEOUT_SECONDS, describe=lambda: f"no {pattern}: {self.describe()}")

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._master, 65536)
            except OSError:
                return
            if not chunk:
                return
            self._output += chunk
