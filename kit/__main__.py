"""`python3 .llm-bus/kit COMMAND`: what git and the clients call.

Any Python can read this file, so that an old one is told kindly.
"""

import os
import sys

if sys.version_info < (3, 9):  # noqa: UP036 - this one file is also run by the Pythons that the others refuse
    sys.stderr.write(
        "llm-bus: the hook needs Python 3.9 or newer, this is %d.%d; going on without it.\n" % sys.version_info[:2]  # noqa: UP031
    )
    sys.exit(0)

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from kit.main import run

run(sys.argv[1:])
