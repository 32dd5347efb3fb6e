"""PostgreSQL from a wheel, as a direct child process; a server that pg_ctl starts would outlive this process."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg

from cli.embedded import child
from cli.embedded.account import UnixAccount, change_owner
from cli.embedded.binaries import PostgresBinaries, bin_dir_for_initdb, find_postgres
from cli.embedded.cluster import choose_socket_dir, stop_orphaned_postmaster
from cli.files import read_or_create_secret

ROLE = DATABASE_NAME = "llm_bus"
# The role of the processes; bus/db/application_role.py.
APPLICATION_ROLE = "llm_bus_app"
_SETTINGS_FILE = "llm-bus.conf"
# Fast shutdown (disconnects clients, writes a checkpoint), then immediate shutdown (recovery at the next start).
STOP_SIGNALS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 5.0))


@dataclass(frozen=True)
class PostgresServer:
    """A launched PostgreSQL server.

    Attributes:
        url: of the database `llm_bus`, as its superuser; usable after `wait_until_ready`.
        application_url: of the same database for the processes; usable after a migration has created its role.
        maintenance_url: of the database `postgres`, for creating and dropping databases.
    """

    process: subprocess.Popen[bytes]
    port: int
    url: str
    application_url: str
    maintenance_url: str
    data_dir: Path
    log_path: Path


def launch(
    base_dir: Path, *, port: int, log_path: Path, account: UnixAccount | None, ephemeral: bool = False
) -> PostgresServer:
    """Start PostgreSQL on 127.0.0.1 without waiting for it; create its cluster if there is none.

    Args:
        base_dir: the folder for the cluster, its password and its socket; created if it does not exist.
        port: the TCP port.
        log_path: receives the output of the server.
        account: the account that runs it, if the present user is root.
        ephemeral: for tests: nothing is forced to disk, so a crash of the machine may lose the cluster.

    Raises:
        StartFailedError: no binaries, `initdb` failed, or the cluster has another major version.
    """
    binaries = find_postgres(base_dir.parent, account)
    base_dir.mkdir(mode=0o711 if account else 0o700, exist_ok=True)
    password = read_or_create_secret(base_dir / "password")
    application_password = read_or_create_secret(base_dir / "application-password")
    # A subfolder that belongs to the account, which may not write into base_dir.
    server_dir = base_dir / "server"
    if not server_dir.exists():
        server_dir.mkdir(mode=0o700)
        change_owner(server_dir, account)
    data = server_dir / "data"
    if (data / "PG_VERSION").exists():
        _require_version(data, binaries)
        stop_orphaned_postmaster(data)
    else:
        _init_cluster(binaries, server_dir, data, password, account, ephemeral=ephemeral)
    _write_settings(data, port, account, ephemeral=ephemeral)
    process = child.spawn(
        [str(binaries.bin_dir / "postgres"), "-D", str(data)],
        log_path=log_path,
        death_signal=signal.SIGINT,
        env=_server_environment(),
        cwd=data if account is None else Path("/"),
        account=account,
    )
    address = f"127.0.0.1:{port}"
    base = f"postgresql://{ROLE}:{password}@{address}"
    return PostgresServer(
        process,
        port,
        url=f"{base}/{DATABASE_NAME}",
        application_url=f"postgresql://{APPLICATION_ROLE}:{application_password}@{address}/{DATABASE_NAME}",
        maintenance_url=f"{base}/postgres",
        data_dir=data,
        log_path=log_path,
    )


def wait_until_ready(
    server: PostgresServer, on_poll: Callable[[], None] = child.do_nothing, timeout_seconds: float = 120.0
) -> None:
    """Return when the database `llm_bus` accepts connections; create it the first time.

    Raises:
        PortTakenError: another program took the port.
        StartFailedError: the server ended, or was not ready in time, as after a crash with a long recovery.
    """
    if not child.wait_until(lambda: _is_ready(server), server.process, timeout_seconds, on_poll):
        ended = server.process.poll() is not None
        child.stop(server.process, STOP_SIGNALS)
        message = "ended at once" if ended else f"was not ready after {timeout_seconds:.0f} s"
        failure = (
            child.PortTakenError
            if ended and child.is_port_taken(server.port, server.log_path)
            else child.StartFailedError
        )
        raise failure(
            f"PostgreSQL {message}. Its log, {server.log_path}, ends with:{child.format_log_tail(server.log_path)}"
        )
    try:
        psycopg.connect(server.url, connect_timeout=10).close()
    except psycopg.OperationalError as error:
        # A failed connection has no SQLSTATE, so the catalogue shows whether the database exists.
        with psycopg.connect(server.maintenance_url, connect_timeout=10, autocommit=True) as conn:
            if conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE_NAME]).fetchone():
                raise child.StartFailedError(f"PostgreSQL refuses connections to its database: {error}") from error
            conn.execute(f"CREATE DATABASE {DATABASE_NAME}")


def stop(server: PostgresServer) -> None:
    """Stop the server cleanly; committed data is on disk."""
    child.stop(server.process, STOP_SIGNALS)


def _init_cluster(
    binaries: PostgresBinaries,
    server_dir: Path,
    data: Path,
    password: str,
    account: UnixAccount | None,
    *,
    ephemeral: bool,
) -> None:
    """Run initdb in a draft folder and rename it, so that an interrupted initdb leaves no partial cluster."""
    draft = server_dir / "data.new"
    for folder in (draft, data):
        shutil.rmtree(folder, ignore_errors=True)
    # A file in the account's folder, not /dev/stdin: another user cannot open a pipe of root.
    password_file = server_dir / "initdb.password"
    password_file.unlink(missing_ok=True)
    with os.fdopen(os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(password)
    change_owner(password_file, account)
    options = [
        *("-D", str(draft), "-U", ROLE, f"--pwfile={password_file}"),
        *("--auth=scram-sha-256", "--encoding=UTF8", "--data-checksums", *_locale_options(binaries.major_version)),
        *(("--no-sync", "-c", "scram_iterations=1") if ephemeral else ()),
    ]
    try:
        with bin_dir_for_initdb(binaries, account) as bin_dir:
            result = subprocess.run(
                [str(bin_dir / "initdb"), *options],
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
                env=_server_environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                start_new_session=True,
            )
    finally:
        password_file.unlink(missing_ok=True)
    if result.returncode != 0:
        shutil.rmtree(draft, ignore_errors=True)
        message = result.stderr.strip() or result.stdout.strip()
        if "could not look up effective user" in message:
            message += " (PostgreSQL needs a user with a name: add one to this machine, or set DATABASE_URL.)"
        raise child.StartFailedError(f"initdb failed in {server_dir}: {message}")
    with (draft / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write(
            f"\n# llm-bus rewrites the included file at each start; settings below this line override it.\n"
            f"include_if_exists = '{_SETTINGS_FILE}'\n"
        )
    draft.rename(data)


def _locale_options(major: int) -> tuple[str, ...]:
    """Return options for bytewise order and Unicode character classes, the same on every machine."""
    if major >= 17:
        return ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    return ("--locale=C",) if sys.platform == "darwin" else ("--locale=C.UTF-8",)


def _write_settings(data: Path, port: int, account: UnixAccount | None, *, ephemeral: bool) -> None:
    socket_dir = choose_socket_dir(data.parent, port)
    if socket_dir is not None and not socket_dir.exists():
        socket_dir.mkdir(mode=0o700)
        change_owner(socket_dir, account)
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": str(socket_dir or ""),
        "unix_socket_permissions": "0700",
        "max_connections": "400" if ephemeral else "200",
        # The queries take microseconds; compiling them takes milliseconds.
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        # SQLSTATE in each line: a deadlock has the code 40P01 in any language.
        "log_line_prefix": "%m [%p] %e ",
        "log_checkpoints": "off",
        "logging_collector": "off",
        "fsync": "off" if ephemeral else "on",
        "full_page_writes": "off" if ephemeral else "on",
        "synchronous_commit": "on",
    }
    if ephemeral:
        # Tests clone many databases; without this every few clones force a checkpoint.
        settings |= {"max_wal_size": "1GB", "checkpoint_timeout": "1h", "wal_level": "minimal", "max_wal_senders": "0"}
        # They connect some thousand times, for 3 ms of CPU each with the default, and without statistics
        # a query of many small tables starts two processes.
        settings |= {"scram_iterations": "1", "max_parallel_workers_per_gather": "0"}
        # It would start a process in each clone, and give tables statistics at any time.
        settings["autovacuum"] = "off"
    lines = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
    path = data / _SETTINGS_FILE
    # A restart on a full disk needs no new file; without the settings PostgreSQL would listen on another port.
    if path.is_file() and not path.is_symlink() and path.read_text(encoding="utf-8") == lines:
        return
    draft = data / f"{_SETTINGS_FILE}.new"
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(lines)
    change_owner(draft, account)
    draft.replace(path)


def _is_ready(server: PostgresServer) -> bool:
    """Read the postmaster's state from line 8 of its pid file, as pg_ctl does."""
    try:
        lines = (server.data_dir / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0] == str(server.process.pid) and lines[7].strip() == "ready"


def _require_version(data: Path, binaries: PostgresBinaries) -> None:
    version = (data / "PG_VERSION").read_text(encoding="utf-8").strip()
    if version != str(binaries.major_version):
        raise child.StartFailedError(
            f"{data} was created by PostgreSQL {version}, but {binaries.bin_dir} is version {binaries.major_version}. "
            f"Set LLM_BUS_PG_BIN to binaries of version {version}, or choose another folder with --data."
        )


def _server_environment() -> dict[str, str]:
    # Without the user's environment: PGDATA, PGPORT and similar variables would affect the server.
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
