"""Exit codes of `llm-bus`, and the one exception that carries one of them to the terminal.

| code | meaning |
|---|---|
| 0 | done; for `up`: ended by a signal, everything stopped |
| 1 | refused or failed: the bus said no, a check failed, a server did not start |
| 2 | the command line itself is wrong (unknown option, missing argument) |
| 3 | `up`: a bus already runs in this data folder |
| 4 | what the arguments name does not exist |
| 5 | the bus cannot be reached: nothing is running, or the database does not answer |
| 6 | contention: somebody else holds what was asked for |
| 7 | nothing came within the time that was given |
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """See the table in the module's docstring."""

    OK = 0
    FAILED = 1
    USAGE = 2
    RUNNING = 3
    NOT_FOUND = 4
    UNAVAILABLE = 5
    CONTENTION = 6
    TIMED_OUT = 7


class CliError(Exception):
    """An expected failure: one line for the terminal, one exit code for scripts."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code
