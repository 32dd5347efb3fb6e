"""PostgreSQL from a wheel, as a direct child process (not through pg_ctl, whose server would outlive us)."""

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
from cli.embedded.binaries import PostgresBinaries, find_postgres
from cli.embedded.cluster import choose_socket_dir, stop_orphaned_postmaster
from cli.files import read_or_create_secret

ROLE = DATABASE_NAME = "llm_bus"
_SETTINGS_FILE = "llm-bus.conf"
# Fast shutdown (clients are cut off, a clean checkpoint), then immediate (recovers at the next start).
STOP_SIGNALS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 5.0))


@dataclass(frozen=True)
class PostgresServer:
    """A PostgreSQL that was launched.

    Attributes:
        url: of the database `llm_bus`, as its superuser; works once `wait` has returned.
        maintenance_url: of the database `postgres`, for creating and dropping others.
    """

    process: subprocess.Popen[bytes]
    port: int
    url: str
    maintenance_url: str
    data_dir: Path
    log_path: Path


def launch(
    base_dir: Path, *, port: int, log_path: Path, account: UnixAccount | None, ephemeral: bool = False
) -> PostgresServer:
    """Start PostgreSQL on 127.0.0.1, making its cluster first if there is none; does not wait for it.

    Args:
        home: our folder for it: the cluster, its password, its socket. We make it.
        account: whom to run it as, when we are root.
        fast: for tests: nothing is forced to disk, so a crash of the machine may lose the cluster.
    Raises:
        StartFailedError: no binaries, `initdb` failed, or the cluster is of another major version.
    """
    binaries = find_postgres(base_dir.parent, account)
    base_dir.mkdir(mode=0o711 if account else 0o700, exist_ok=True)
    password = read_or_create_secret(base_dir / "password")
    # A folder of its own, since the account may not write into ours.
    own = base_dir / "server"
    if not own.exists():
        own.mkdir(mode=0o700)
        change_owner(own, account)
    data = own / "data"
    if (data / "PG_VERSION").exists():
        _require_version(data, binaries)
        stop_orphaned_postmaster(data)
    else:
        _init_cluster(binaries, own, data, password, account, ephemeral=ephemeral)
    _write_settings(data, port, account, ephemeral=ephemeral)
    process = child.spawn(
        [str(binaries.bin_dir / "postgres"), "-D", str(data)],
        log_path=log_path,
        death_signal=signal.SIGINT,
        env=_server_environment(),
        cwd=data if account is None else Path("/"),
        account=account,
    )
    base = f"postgresql://{ROLE}:{password}@127.0.0.1:{port}"
    return PostgresServer(process, port, f"{base}/{DATABASE_NAME}", f"{base}/postgres", data, log_path)


def wait_until_ready(
    server: PostgresServer, on_poll: Callable[[], None] = child.do_nothing, timeout_seconds: float = 120.0
) -> None:
    """Return when the database `llm_bus` takes connections; the first time it is created here.

    Raises:
        PortTakenError: the port went to somebody else meanwhile.
        StartFailedError: it ended, or did not get ready in time (a long recovery after a crash).
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
        # No SQLSTATE comes with a failed connection, so the catalogue has to say why.
        with psycopg.connect(server.maintenance_url, connect_timeout=10, autocommit=True) as conn:
            if conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE_NAME]).fetchone():
                raise child.StartFailedError(f"PostgreSQL refuses its own database: {error}") from error
            conn.execute(f"CREATE DATABASE {DATABASE_NAME}")


def stop(server: PostgresServer) -> None:
    """End it cleanly; what was committed is on disk."""
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
    """Run initdb beside `data` and rename, so that one that was interrupted is never taken for a cluster."""
    draft = server_dir / "data.new"
    for leftover in (draft, data):
        shutil.rmtree(leftover, ignore_errors=True)
    # In the account's folder and not /dev/stdin: a pipe of root's cannot be opened by another user.
    password_file = server_dir / "initdb.password"
    password_file.unlink(missing_ok=True)
    with os.fdopen(os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(password)
    change_owner(password_file, account)
    command = [
        *(str(binaries.bin_dir / "initdb"), "-D", str(draft), "-U", ROLE, f"--pwfile={password_file}"),
        *("--auth=scram-sha-256", "--encoding=UTF8", "--data-checksums", *_locale_options(binaries.major_version)),
        *(("--no-sync",) if ephemeral else ()),
    ]
    try:
        done = subprocess.run(
            command,
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
    if done.returncode != 0:
        shutil.rmtree(draft, ignore_errors=True)
        said = done.stderr.strip() or done.stdout.strip()
        if "could not look up effective user" in said:
            said += " (PostgreSQL needs a user that has a name: add one to this machine, or set DATABASE_URL.)"
        raise child.StartFailedError(f"initdb failed in {server_dir}: {said}")
    with (draft / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write(
            f"\n# Written anew at each start by llm-bus; settings below this line win.\n"
            f"include_if_exists = '{_SETTINGS_FILE}'\n"
        )
    draft.rename(data)


def _locale_options(major: int) -> tuple[str, ...]:
    """Bytewise order and Unicode letters, the same on every machine."""
    if major >= 17:
        return ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    return ("--locale=C",) if sys.platform == "darwin" else ("--locale=C.UTF-8",)


def _write_settings(data: Path, port: int, account: UnixAccount | None, *, ephemeral: bool) -> None:
    sockets = choose_socket_dir(data.parent, port)
    if sockets is not None and not sockets.exists():
        sockets.mkdir(mode=0o700)
        change_owner(sockets, account)
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": str(sockets or ""),
        "unix_socket_permissions": "0700",
        "max_connections": "400" if ephemeral else "200",
        # Our queries take microseconds; compiling them takes milliseconds.
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        # SQLSTATE in each line: a deadlock is found by its code, 40P01, in any language.
        "log_line_prefix": "%m [%p] %e ",
        "log_checkpoints": "off",
        "logging_collector": "off",
        "fsync": "off" if ephemeral else "on",
        "full_page_writes": "off" if ephemeral else "on",
        "synchronous_commit": "on",
    }
    if ephemeral:
        # Tests clone databases all the time; without this each few clones force a checkpoint.
        settings |= {"max_wal_size": "4GB", "checkpoint_timeout": "1h"}
    lines = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
    path = data / _SETTINGS_FILE
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(lines)
    change_owner(path, account)


def _is_ready(server: PostgresServer) -> bool:
    """The postmaster writes its state into the last line of its pid file, as pg_ctl reads it."""
    try:
        lines = (server.data_dir / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0] == str(server.process.pid) and lines[7].strip() == "ready"


def _require_version(data: Path, binaries: PostgresBinaries) -> None:
    version = (data / "PG_VERSION").read_text(encoding="utf-8").strip()
    if version != str(binaries.major_version):
        raise child.StartFailedError(
            f"{data} was made by PostgreSQL {version}, but {binaries.bin_dir} is version {binaries.major_version}. "
            f"Point LLM_BUS_PG_BIN at binaries of version {version}, or choose another folder with --data."
        )


def _server_environment() -> dict[str, str]:
    # PGDATA, PGPORT and the like in the user's environment would reach the server.
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
