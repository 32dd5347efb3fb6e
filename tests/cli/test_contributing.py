"""The changes that CONTRIBUTING.md shows apply to this version."""

import re
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_DIFFS = re.findall(r"^```diff\n(.*?)^```$", (_ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("diff", _DIFFS, ids=["tool", "job", "page"])
def test_a_shown_change_applies(diff: str) -> None:
    # Line numbers may have moved.
    applied = subprocess.run(
        ["git", "apply", "--check", "-C1", "-"], cwd=_ROOT, input=diff, capture_output=True, text=True
    )
    assert applied.returncode == 0, applied.stderr
