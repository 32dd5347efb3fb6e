"""Exit codes of `llm-bus`, and the exception that carries one of them.

| code | meaning |
|---|---|
| 0 | done; for `up`: ended by a signal, everything stopped |
| 1 | refused or failed: the bus refused the call, a check failed, a server did not start |
| 2 | wrong usage: unknown option, missing argument |
| 3 | `up`: a bus already runs in this data folder |
| 4 | an argument names something that does not exist |
| 5 | the bus cannot be reached: nothing is running, or the database does not answer |
| 6 | contention: another participant holds the surface |
| 7 | timed out: nothing arrived within the given time |
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes; the module's docstring describes them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    RUNNING = 3
    NOT_FOUND = 4
    UNAVAILABLE = 5
    CONTENTION = 6
    TIMED_OUT = 7


class CliError(Exception):
    """An expected failure: one line for the terminal and an exit code."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code
