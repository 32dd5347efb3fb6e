"""Interpreters that run the kit in forks of a running process: a start costs 15 ms of CPU instead of 150.

The kit's tests start thousands of hooks and installers, each of which would first import the standard library and
compile the kit. Everything else, from `python3 -c` to the user's own hooks, gets a new interpreter, and so does each
command of the tests that are marked `new_interpreter`. A fork also waits longer for the bus than the kit does, since a
loaded machine exceeds 0.3 s; not in tests that are marked `time_limits`.
"""

import atexit
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

_SERVER = Path(__file__).with_name("python_fork_server.py")
_NEW_INTERPRETER = '#!/bin/sh\nexec {python} "$@"\n'
_FORK = """\
#!/bin/sh
llm_bus_script=$1
if [ "$1" = -I ]; then llm_bus_script=$2; fi
if [ "$llm_bus_script" = -c ]; then llm_bus_script=$3; fi
case "$llm_bus_script" in
# The last one is the code of kit/client_commands.py, always with -I.
*/kit | */kit/install.py | "import os,runpy,"*)
    # The server opens copies of the streams, since the redirections of echo and read replace the streams themselves.
    {mkfifo} {folder}/$$ && exec 3<>{folder}/$$ 4<&0 5>&1
    echo $$ >{folder}/requests
    read -r llm_bus_code <&3
    exec 3>&- 4<&- 5>&-
    if [ "$llm_bus_code" != new ]; then exit "$llm_bus_code"; fi
    ;;
esac
exec {python} "$@"
"""


def write_launcher(path: Path, python: str, *, forks: bool) -> None:
    """Write a program that behaves as an interpreter.

    Args:
        forks: run the kit in a fork of a running process, where the system can do that.
    """
    template, folder = (_FORK, _start_server(python)) if forks and sys.platform == "linux" else (_NEW_INTERPRETER, "")
    mkfifo = shutil.which("mkfifo") or ""
    path.write_text(template.format(python=shlex.quote(python), folder=shlex.quote(folder), mkfifo=mkfifo))
    path.chmod(0o755)


@cache
def _start_server(python: str) -> str:
    """Start the fork server of an interpreter. Returns the folder of its pipes."""
    folder = tempfile.mkdtemp()
    os.mkfifo(os.path.join(folder, "requests"))
    server = subprocess.Popen(
        [python, "-I", str(_SERVER), folder], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={"LANG": "C.UTF-8"}
    )
    atexit.register(_stop_server, server)
    return folder


def _stop_server(server: "subprocess.Popen[bytes]") -> None:
    assert server.stdin is not None
    server.stdin.close()
    server.wait(30)
