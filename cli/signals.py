"""How a long-running command is asked to end."""

import os
import select
import signal
from types import FrameType


class ShutdownRequested(BaseException):
    """A signal asked us to end; raised only where we wait, so that no child is lost between two lines."""


class ShutdownSignals:
    """SIGINT, SIGTERM and SIGHUP ask for an orderly end."""

    def __init__(self) -> None:
        self.is_requested = False
        self._wakeup_reader, self._wakeup_writer = os.pipe()
        os.set_blocking(self._wakeup_writer, False)
        signal.set_wakeup_fd(self._wakeup_writer, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup makes us ignore SIGHUP, and knows why. A shell script makes what it starts with `&` ignore
            # SIGINT, but may well send it later.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        # With a handler of its own, the end of a child wakes `wait`.
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def raise_if_requested(self) -> None:
        """Raise where somebody asked us to end."""
        if self.is_requested:
            raise ShutdownRequested

    def wait(self, seconds: float) -> None:
        """Sleep until a signal arrives or the time is over."""
        if select.select([self._wakeup_reader], [], [], seconds)[0]:
            os.read(self._wakeup_reader, 4096)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.is_requested = True
