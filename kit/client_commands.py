"""The command line that runs the kit from a hook of a client or of a hook manager."""

from __future__ import annotations

import sys

# Works in every shell and without one: no other quotes, no variable, no path. It runs the kit in `.git`, or, in another
# worktree or a subfolder, in the folder that git names, and ends with 0 if there is none. No file of the checked-out
# branch is run: git checks out nothing named `.git`, Python imports nothing from the current folder (-I), and git uses
# no folder that only looks like a repository. Without -S, Python would look for installed packages first, which may
# take longer than everything else.
HOOK_LAUNCHER = (
    "import os;d=os.getenv('CLAUDE_PROJECT_DIR')or'.';os.path.isdir(d)or os._exit(0);os.chdir(d);d='.git';"
    "d=d if os.path.isdir(d)else os.fsdecode(__import__('subprocess').run('git -c safe.bareRepository=explicit "
    "rev-parse --git-common-dir',shell=1,stdin=-3,stdout=-1,stderr=-3).stdout)[:-1]or os.devnull;"
    "d+='/llm-bus/kit/__main__.py';os.path.isfile(d)and exec(open(d).read(),{'__file__':d})"
)


def hook_command(arguments: str) -> str:
    """Build the command line that runs the kit from a client's hook."""
    python = "python" if sys.platform == "win32" else "python3"
    return f'{python} -ISc "{HOOK_LAUNCHER}" {arguments}'
