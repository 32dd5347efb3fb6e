"""A fork of a running interpreter behaves as a new one, as far as the kit can see."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.kit.warm_python import write_launcher

REPORT = """\
import json, os, signal, sys
state = [sys.argv, dict(sorted(os.environ.items())), os.getcwd(), sys.stdin.read(), sys.path[0]]
state += [__name__, __file__, sys.executable]
state += [sys.version, signal.getsignal(signal.SIGINT) is signal.default_int_handler, sys.stdout.encoding]
state += [sorted(set(sys.modules) & {"kit", "tests"}), sys.stdin.errors, sys.stdout.errors]
state[1].pop("PWD", None)  # which a shell adds
print(json.dumps(state))
print("to standard error", file=sys.stderr)
"""
ENV = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "CODE": "ü\n", "EMPTY": ""}


def run(
    folder: Path, python: str, code: str, *, forks: bool, isolated: bool = True
) -> "subprocess.CompletedProcess[str]":
    kit = folder / "kit"
    kit.mkdir(exist_ok=True)
    (kit / "__main__.py").write_text(code)
    launcher = folder / "python"
    write_launcher(launcher, python, forks=forks)
    command: list[str | Path] = [launcher, *(["-I"] if isolated else []), folder / "kit", "two words", "", "*", "-x"]
    return subprocess.run(command, cwd=kit, env=ENV, input="lines\n", capture_output=True, text=True, check=False)


@pytest.mark.parametrize("isolated", [True, False])
def test_a_fork_has_the_arguments_environment_and_streams_of_a_new_interpreter(
    tmp_path: Path, python: str, isolated: bool
) -> None:
    new, forked = (run(tmp_path, python, REPORT, forks=forks, isolated=isolated) for forks in (False, True))
    assert (new.returncode, new.stderr) == (0, "to standard error\n")
    assert (forked.returncode, forked.stderr) == (new.returncode, new.stderr)
    assert json.loads(forked.stdout) == json.loads(new.stdout)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("raise SystemExit(7)", 7),
        ("raise SystemExit('reason')", 1),
        ("raise ValueError('reason')", 1),
        ("import os; os._exit(9)", 9),
        ("import atexit, os; atexit.register(os._exit, 5)", 5),
        # A shell returns this for a signal.
        ("import os; os.kill(os.getpid(), 9)", 137),
    ],
)
def test_a_fork_ends_as_a_new_interpreter(tmp_path: Path, python: str, code: str, expected: int) -> None:
    done = run(tmp_path, python, code, forks=True)
    assert (done.returncode, "reason" in done.stderr) == (expected, "reason" in code)


def test_what_is_not_the_kit_gets_a_new_interpreter(tmp_path: Path, python: str) -> None:
    launcher = tmp_path / "python"
    write_launcher(launcher, python, forks=True)
    code = "import sys; sys.exit('argparse' in sys.modules)"
    assert subprocess.run([launcher, "-c", code], env=ENV, check=False).returncode == 0
    # The command that a client runs is the kit.
    hook = f"import os,runpy,sys; {code}"
    assert subprocess.run([launcher, "-I", "-c", hook], env=ENV, check=False).returncode == 1
