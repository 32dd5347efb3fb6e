"""The client programs of PostgreSQL: find one of the right version, and run it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from cli.embedded.binaries import find_packaged_bin_dir
from cli.exit_codes import CliError
from cli.settings import POSTGRES_PROGRAMS, read_variable

_SYSTEM_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
# The variables of libpq for the parts of a URL. Arguments of a process are public, its environment is not.
_LIBPQ_VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "options": "PGOPTIONS",
}


def run_program(program: str, server_version: int, url: str | None, *arguments: str) -> str:
    """Run a program of PostgreSQL and return its output.

    Raises:
        CliError: it is missing or failed; with its own message, in which PostgreSQL names no password.
    """
    command = [str(_find_program(program, server_version)), *arguments]
    result = subprocess.run(
        command,
        env=_libpq_environment(url),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode:
        message = result.stderr.strip() or f"exit code {result.returncode}"
        raise CliError(f"{program} failed: {message.splitlines()[0].removeprefix(f'{program}: ')}")
    return result.stdout


def _libpq_environment(url: str | None) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    for name, value in conninfo_to_dict(url or "").items():
        if name not in _LIBPQ_VARIABLES:
            raise CliError(f"DATABASE_URL has the option {name}, which cannot be passed to pg_dump; remove it.")
        environment[_LIBPQ_VARIABLES[name]] = str(value)
    return environment


def _find_program(name: str, server_version: int) -> Path:
    """Find a program of PostgreSQL whose version is the server's or the nearest above; older ones refuse the server.

    Raises:
        CliError: there is none.
    """
    versions: dict[int, Path] = {}
    for folder in _program_folders():
        path = folder / name
        version = _read_program_version(path) if path.is_file() else None
        if version is not None and version >= server_version:
            versions.setdefault(version, path)
    if not versions:
        raise CliError(
            f"{name} of PostgreSQL {server_version} or newer was not found. Install the client programs "
            f"(Debian: postgresql-client-{server_version}), or set LLM_BUS_PG_BIN to their folder."
        )
    return versions[min(versions)]


def _program_folders() -> list[Path]:
    chosen = read_variable(POSTGRES_PROGRAMS)
    if chosen:
        return [Path(chosen)]
    packaged = find_packaged_bin_dir()
    on_path = shutil.which("pg_dump")
    system: list[Path] = [path for pattern in _SYSTEM_FOLDERS for path in sorted(Path("/").glob(pattern[1:]))]
    return [*([packaged] if packaged else []), *([Path(on_path).parent] if on_path else []), *system]


def _read_program_version(path: Path) -> int | None:
    try:
        output = subprocess.run([str(path), "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"\b(\d+)(?:\.\d+)?", output)
    return int(match[1]) if match else None
