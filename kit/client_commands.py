"""The command line that runs the kit from a hook of a client or of a hook manager."""

from __future__ import annotations

import sys

# Works in every shell and without one: no other quotes, no variable, no path. It asks git for the folder that all
# worktrees share, runs the kit that is installed there, and ends with 0 if there is none. No file of the checked-out
# branch is run: Python imports nothing from the current folder (-I), and git uses no folder that only looks like one.
HOOK_LAUNCHER = (
    "import os,runpy,shutil as u,subprocess as s;d=os.environ.get('CLAUDE_PROJECT_DIR')or'.';"
    "r=os.path.isdir(d)and u.which('git')and s.run(['git','-c','safe.bareRepository=explicit','rev-parse',"
    "'--git-common-dir'],cwd=d,stdin=s.DEVNULL,stdout=s.PIPE,stderr=s.DEVNULL);"
    "k=r and r.returncode==0 and os.path.join(d,os.fsdecode(r.stdout)[:-1],'llm-bus','kit');"
    "k and os.path.isfile(os.path.join(k,'__main__.py'))and runpy.run_path(k,run_name='__main__')"
)


def hook_command(arguments: str) -> str:
    """Build the command line that runs the kit from a client's hook."""
    python = "python" if sys.platform == "win32" else "python3"
    return f'{python} -I -c "{HOOK_LAUNCHER}" {arguments}'
