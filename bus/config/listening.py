"""The error of a process that cannot listen on its address."""

import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_BIND_ERRORS = {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES}


@contextmanager
def bind_errors_end_the_start(process: str, host: str, port: int) -> Iterator[None]:
    """Turn the error of a failed bind into one line on standard error and exit code 1."""
    try:
        yield
    except OSError as error:
        if error.errno not in _BIND_ERRORS and not isinstance(error, socket.gaierror):
            raise
        sys.exit(
            f"llm-bus {process}: cannot listen on {host}:{port}: {error.strerror}. Set HOST and PORT to a free address."
        )
