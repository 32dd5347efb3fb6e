"""One PostgreSQL and one Valkey per test run, shared by its worker processes."""

import atexit
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg
import pytest
from psycopg import sql

from bus.db import Connection
from cli.embedded import account, postgres, redis

_PREFIX = "llm-bus-tests-"
_MEMORY_FOLDER, _DISK_FOLDER = Path("/dev/shm"), Path("/tmp")
# The databases of a run take up to 2 GB, the write-ahead log 1 GB.
_MIN_FREE_MEMORY_BYTES = 6 << 30
_TEMPLATE_DATABASE = "bus_template"
_TEMPLATE_LOCK = 7_411_923
# The main process passes the addresses of the servers to its workers in these variables.
_MAINTENANCE_URL, _REDIS_URL, _POSTGRES_LOG = "TEST_MAINTENANCE_URL", "TEST_REDIS_URL", "TEST_POSTGRES_LOG"
_APPLICATION_URL = "TEST_APPLICATION_URL"
_free_connections: dict[tuple[int, str], list[psycopg.Connection]] = {}


class Servers:
    """The running servers; `stop` ends both and removes their folder."""

    def __init__(self) -> None:
        if binaries := os.environ.get("TEST_POSTGRES_BIN"):
            os.environ["LLM_BUS_PG_BIN"] = binaries
        _remove_stale_folders()
        self.folder = make_traversable_folder()
        log = self.folder / "postgres.log"
        self.redis = redis.launch(
            self.folder / "redis", port=free_port(), log_path=self.folder / "redis.log", ephemeral=True
        )
        self.postgres = postgres.launch(
            self.folder / "postgres",
            port=free_port(),
            log_path=log,
            account=account.choose_account(self.folder),
            ephemeral=True,
        )
        try:
            redis.wait_until_ready(self.redis)
            postgres.wait_until_ready(self.postgres)
        except BaseException:
            self.stop()
            raise
        os.environ[_MAINTENANCE_URL] = self.postgres.maintenance_url
        os.environ[_APPLICATION_URL] = self.postgres.application_url
        os.environ[_REDIS_URL] = self.redis.url
        os.environ[_POSTGRES_LOG] = str(log)

    def make_temporary_folder(self) -> Path:
        """Create the folder for temporary files of the tests, which `stop` removes."""
        folder = self.folder / "tmp"
        folder.mkdir()
        folder.chmod(0o1777)
        return folder

    def stop(self) -> None:
        """Stop the servers, also if tests left connections open."""
        redis.stop(self.redis)
        postgres.stop(self.postgres)
        shutil.rmtree(self.folder, ignore_errors=True)


def make_traversable_folder() -> Path:
    """Create a temporary folder that the account of PostgreSQL can enter, unlike pytest's `tmp_path`.

    The path is short enough for Unix sockets.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_choose_parent_folder()))
    folder.chmod(0o711)
    return folder


def _choose_parent_folder() -> Path:
    """Return a folder in memory if there is room, since a clone of the template has 330 files.

    A clone takes 18 ms of CPU in memory, and 110 to 440 ms on the disk of a busy machine.
    """
    try:
        room = min(psutil.disk_usage(str(_MEMORY_FOLDER)).free, psutil.virtual_memory().available)
        # Copies of PostgreSQL's programs are run from the folder.
        may_execute = not os.statvfs(_MEMORY_FOLDER).f_flag & os.ST_NOEXEC
    except OSError:
        return _DISK_FOLDER
    usable = may_execute and os.access(_MEMORY_FOLDER, os.W_OK) and room >= _MIN_FREE_MEMORY_BYTES
    return _MEMORY_FOLDER if usable else _DISK_FOLDER


@contextmanager
def cloned_database(template: str | None = None) -> Iterator[str]:
    """Yield the URL of a copy of a database without connections, and drop it afterwards.

    Args:
        template: the URL of the database to copy; a migrated, empty database if left out.
    """
    maintenance = os.environ[_MAINTENANCE_URL]
    name = f"test_{uuid.uuid4().hex[:16]}"
    with _maintenance_connection() as conn:
        if template is None:
            _ensure_template(conn, maintenance)
        # On a disk, WAL_LOG takes 27 ms, or 70 ms with four at a time; FILE_COPY, with its checkpoints, 50 and 300 ms.
        # In memory, WAL_LOG takes 77 ms of CPU, and FILE_COPY 42.
        is_in_memory = Path(os.environ[_POSTGRES_LOG]).is_relative_to(_MEMORY_FOLDER)
        conn.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY {}").format(
                sql.Identifier(name),
                sql.Identifier(urlsplit(template).path.removeprefix("/") if template else _TEMPLATE_DATABASE),
                sql.SQL("file_copy" if is_in_memory else "wal_log"),
            )
        )
    try:
        yield _with_database(maintenance, name)
    finally:
        drop_database(name)


@contextmanager
def empty_database() -> Iterator[str]:
    """Yield the URL of a new database without a schema, and drop it afterwards."""
    maintenance = os.environ[_MAINTENANCE_URL]
    name = f"test_{uuid.uuid4().hex[:16]}"
    with _maintenance_connection() as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield _with_database(maintenance, name)
    finally:
        drop_database(name)


def drop_database(name: str) -> None:
    """Drop a database and close all connections to it."""
    with _maintenance_connection() as conn:
        conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def _maintenance_connection() -> Iterator[psycopg.Connection]:
    """Yield a connection outside a transaction: a free one of this process, or a new one, which is kept.

    To connect takes 5 ms of CPU.
    """
    url = os.environ[_MAINTENANCE_URL]
    # A forked process inherits the list, but cannot use the connections.
    free = _free_connections.setdefault((os.getpid(), url), [])
    conn = free.pop() if free else psycopg.connect(url, autocommit=True)
    try:
        yield conn
    except BaseException:
        conn.close()
        raise
    free.append(conn)


@atexit.register
def _close_connections() -> None:
    for (pid, _), connections in _free_connections.items():
        for conn in connections if pid == os.getpid() else ():
            conn.close()


def redis_url(number: int) -> str:
    """Return the URL of logical database `number`. Pub/sub channels are shared by all logical databases."""
    parts = urlsplit(os.environ[_REDIS_URL])
    return urlunsplit(parts._replace(path=f"/{number}"))


def maintenance_url() -> str:
    """Return the URL for creating and dropping databases."""
    return os.environ[_MAINTENANCE_URL]


def application_url(database_url: str) -> str:
    """Return the URL with which processes connect to a database of this server, whose owner's URL is given.

    It is that of the role which `migrate` creates. Other URLs are returned as they are.
    """
    owner, application = urlsplit(os.environ[_MAINTENANCE_URL]), urlsplit(os.environ[_APPLICATION_URL])
    parts = urlsplit(database_url)
    return database_url if parts.netloc != owner.netloc else urlunsplit(parts._replace(netloc=application.netloc))


def require_auto_explain(conn: Connection) -> None:
    """Skip the test on a PostgreSQL from elsewhere that lacks the module, such as that of `make test-oldest`."""
    try:
        conn.raw.execute("LOAD 'auto_explain'")
    except psycopg.errors.UndefinedFile:
        if "TEST_POSTGRES_BIN" not in os.environ:
            raise
        pytest.skip("this PostgreSQL has no auto_explain")


def act_as_application(conn: Connection) -> None:
    """Restrict a connection of the owner to the role of the processes; see `as_owner`."""
    conn.raw.execute(f"SET ROLE {postgres.APPLICATION_ROLE}".encode())


@contextmanager
def as_owner(conn: Connection) -> Iterator[None]:
    """Act as the owner of the schema in a block, on a connection that `act_as_application` has restricted."""
    with conn.raw.transaction():
        conn.raw.execute("RESET ROLE")
        yield
        act_as_application(conn)


def postgres_log() -> Path:
    """Return the path of the PostgreSQL log; each line has the SQLSTATE."""
    return Path(os.environ[_POSTGRES_LOG])


def _ensure_template(conn: psycopg.Connection, maintenance: str) -> None:
    """Create the migrated template once per run; concurrent callers wait for the first."""
    query = "SELECT 1 FROM pg_database WHERE datname = %s"
    if conn.execute(query, [_TEMPLATE_DATABASE]).fetchone():
        return
    from bus.db import migrate

    conn.execute("SELECT pg_advisory_lock(%s)", [_TEMPLATE_LOCK])
    try:
        if conn.execute(query, [_TEMPLATE_DATABASE]).fetchone():
            return
        draft = f"{_TEMPLATE_DATABASE}_draft"
        conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(draft)))
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(draft)))
        draft_url = _with_database(maintenance, draft)
        migrate.migrate(draft_url, application_url=application_url(draft_url))
        conn.execute(
            sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(draft), sql.Identifier(_TEMPLATE_DATABASE))
        )
    finally:
        conn.execute("SELECT pg_advisory_unlock(%s)", [_TEMPLATE_LOCK])


def _with_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _remove_stale_folders() -> None:
    """Remove the folders of killed runs; their servers ended with them."""
    for folder in (*_DISK_FOLDER.glob(f"{_PREFIX}*"), *_MEMORY_FOLDER.glob(f"{_PREFIX}*")):
        pid = folder.name.removeprefix(_PREFIX).split("-", 1)[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
