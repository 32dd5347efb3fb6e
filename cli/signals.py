"""How a long-running command is asked to end."""

import os
import select
import signal
from types import FrameType


class Stop(BaseException):
    """A signal asked us to end; raised only where we wait, so that no child is lost between two lines."""


class Signals:
    """SIGINT, SIGTERM and SIGHUP ask for an orderly end."""

    def __init__(self) -> None:
        self.asked = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup makes us ignore SIGHUP, and knows why. A shell script makes what it starts with `&` ignore
            # SIGINT, but may well send it later.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._ask)
        # With a handler of its own, the end of a child wakes `wait`.
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def check(self) -> None:
        """Raise where somebody asked us to end."""
        if self.asked:
            raise Stop

    def wait(self, seconds: float) -> None:
        """Sleep until a signal arrives or the time is over."""
        if select.select([self._reader], [], [], seconds)[0]:
            os.read(self._reader, 4096)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
