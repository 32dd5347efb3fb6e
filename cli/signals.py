"""Shutdown signals of a long-running command."""

import os
import select
import signal
from types import FrameType


class ShutdownRequested(BaseException):
    """A signal requested shutdown; raised only at wait points, so that no started child is left unrecorded."""


class ShutdownSignals:
    """Handlers of SIGINT, SIGTERM and SIGHUP that request an orderly shutdown."""

    def __init__(self) -> None:
        self.is_requested = False
        self._wakeup_reader, self._wakeup_writer = os.pipe()
        os.set_blocking(self._wakeup_writer, False)
        signal.set_wakeup_fd(self._wakeup_writer, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Under nohup SIGHUP is ignored on purpose. A shell script starts background processes with SIGINT
            # ignored, but may send it later.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        # A handler lets the end of a child wake `wait`.
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def raise_if_requested(self) -> None:
        """Raise ShutdownRequested if a signal has arrived."""
        if self.is_requested:
            raise ShutdownRequested

    def wait(self, seconds: float) -> None:
        """Sleep until a signal arrives or the time has passed."""
        if select.select([self._wakeup_reader], [], [], seconds)[0]:
            os.read(self._wakeup_reader, 4096)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.is_requested = True
