"""`python3 .git/llm-bus/kit COMMAND`: the entry point for git and the clients.

Every Python version can parse this file, so that an old interpreter prints a clear message.
"""

import os
import sys

if sys.version_info < (3, 9):  # noqa: UP036 - this file also runs under the interpreters that the kit does not support
    message = "llm-bus: the hook needs Python 3.9 or newer; this is %d.%d. Continuing without the bus.\n"
    sys.stderr.write(message % sys.version_info[:2])
    sys.exit(0)

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

try:
    # Most hooks around a tool have nothing to do, and end here.
    from kit import quick

    is_done = quick.run(sys.argv[1:])
    if is_done:
        sys.stdout.flush()
        os._exit(0)
    from kit.main import run
except Exception as error:
    # The interpreter would end with 1, which blocks a commit in other hook managers.
    message = "llm-bus: the kit failed ({}: {}). Continuing without the bus.\n"
    sys.stderr.write(message.format(type(error).__name__, error))
    sys.exit(0)

run(sys.argv[1:])
