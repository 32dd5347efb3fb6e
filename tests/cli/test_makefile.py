"""The commands of the Makefile say what to do where they cannot go on."""

import subprocess
import sys

from tests.cli.console_blocks import ROOT


def test_an_environment_that_cannot_be_written_names_the_variable() -> None:
    done = subprocess.run(
        ["make", "run", "VENV=/proc/environment", f"PYTHON={sys.executable}"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == (
        "The folder /proc/environment cannot be written; choose another: make run VENV=/path/to/folder"
    )
