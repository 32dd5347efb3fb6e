"""The child processes of a process, of which each may end while it is asked about."""

import os
import subprocess
import sys

import psutil

from tests.child_processes import find_children, find_serving_children

_SLEEPING = (sys.executable, "-c", "input()")


def test_a_child_that_ends_between_the_list_and_the_question_is_left_out() -> None:
    with (
        subprocess.Popen(_SLEEPING, stdin=subprocess.PIPE) as ending,
        subprocess.Popen(_SLEEPING, stdin=subprocess.PIPE) as staying,
    ):

        def is_running(child: psutil.Process) -> bool:
            if child.pid == ending.pid:
                ending.kill()
                ending.wait(30)
            return child.status() != psutil.STATUS_ZOMBIE

        found = {child.pid for child in find_children(psutil.Process(), is_running)}
        assert staying.pid in found
        assert ending.pid not in found
        staying.kill()


def test_a_child_that_is_not_reaped_does_not_serve() -> None:
    with subprocess.Popen(_SLEEPING, stdin=subprocess.PIPE) as child:
        assert child.pid in {process.pid for process in find_serving_children(os.getpid())}
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert child.pid not in {process.pid for process in find_serving_children(os.getpid())}
