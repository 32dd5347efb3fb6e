"""A full disk: the supervisor goes on, and the bus serves again without help when there is space."""

import contextlib
import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cli import files, orphans, restart_schedule, runtime, supervisor, up
from cli.embedded import child, postgres
from cli.ports import PortAllocator
from cli.procfile import ProcessType
from cli.restart_schedule import RestartSchedule
from tests.child_processes import is_running
from tests.cli.bus_process import BusProcess, reserve_ports, run_command, running_bus
from tests.concurrency import wait_until
from tests.servers import free_port, make_traversable_folder

_TMPFS_BYTES = 300 << 20
_MAX_RECOVERY_SECONDS = 30.0


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Return a switch: while it is on, no file can be written or created."""
    is_full = threading.Event()
    real_open = os.open

    def refuse_creation(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if is_full.is_set() and flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real_open(path, flags, *args, **options)

    def refuse_touch(path: Path, *args: Any, **options: Any) -> None:
        if is_full.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.close(real_open(path, os.O_WRONLY | os.O_CREAT, 0o600))

    def switch(state: bool) -> None:
        if state:
            is_full.set()
        else:
            is_full.clear()

    monkeypatch.setattr(os, "open", refuse_creation)
    monkeypatch.setattr(Path, "touch", refuse_touch)
    return switch


def _spawn_sleeper(folder: Path) -> supervisor.SupervisedProcess:
    process_type = ProcessType("worker", (sys.executable, "-c", "import time; time.sleep(600)"))
    return supervisor.start(process_type, cwd=folder, log_dir=folder, env={}, port=None)


def test_records_that_cannot_be_written_are_written_when_there_is_space(
    tmp_path: Path, full_disk: Callable[[bool], None], capfd: pytest.CaptureFixture[str]
) -> None:
    running = up.RunningBus(tmp_path, PortAllocator(tmp_path / "ports.json"))
    running.runtime_info = runtime.RuntimeInfo("db", "redis", "web", "mcp", True, str(tmp_path), {})
    full_disk(True)
    running.write_records()
    running.write_records()
    assert capfd.readouterr().err.count("No space left on device") == 1
    assert not any(tmp_path.iterdir())
    full_disk(False)
    running.write_records()
    assert {path.name for path in tmp_path.iterdir()} == {"children.json", "runtime.json"}
    # The end of the run needs no space either.
    full_disk(True)
    orphans.delete_record(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"runtime.json"}


def test_ports_are_assigned_although_they_cannot_be_stored(tmp_path: Path, full_disk: Callable[[bool], None]) -> None:
    full_disk(True)
    ports = PortAllocator(tmp_path / "ports.json")
    assert ports.assign("web") == ports.assign("web")


def test_a_process_is_restarted_on_a_full_disk(tmp_path: Path, full_disk: Callable[[bool], None]) -> None:
    process = _spawn_sleeper(tmp_path)
    try:
        full_disk(True)
        process.popen.kill()
        process.popen.wait()
        wait_until(lambda: supervisor.restart_if_exited(process, lambda _: None))
        assert process.popen.poll() is None
    finally:
        child.stop(process.popen, ())


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.ENOMEM, errno.EAGAIN])
def test_a_process_that_cannot_be_started_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    process = _spawn_sleeper(tmp_path)
    reports: list[str] = []

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(error, os.strerror(error))

    try:
        process.popen.kill()
        process.popen.wait()
        with monkeypatch.context() as patch:
            patch.setattr(child, "spawn", refuse)
            assert not supervisor.restart_if_exited(process, reports.append)
        assert reports[-1] == f"worker cannot be started: [Errno {error}] {os.strerror(error)}"
        wait_until(lambda: supervisor.restart_if_exited(process, reports.append))
        assert process.popen.poll() is None
    finally:
        child.stop(process.popen, ())


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "full"), child.StartFailedError("it ended")], ids=str)
def test_a_server_that_cannot_be_started_does_not_end_the_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    with subprocess.Popen(["false"]) as ended:
        ended.wait()
    server = postgres.PostgresServer(ended, free_port(), "", "", "", tmp_path, tmp_path / "log")
    running = up.RunningBus(tmp_path, PortAllocator(tmp_path / "ports.json"), postgres_server=server)
    running.postgres_restarts = RestartSchedule(time.monotonic())
    launches: list[int] = []

    def launch(*_: Any) -> postgres.PostgresServer:
        launches.append(1)
        if len(launches) < 2:
            raise failure
        return postgres.PostgresServer(ended, server.port, "new", "", "", tmp_path, tmp_path / "log")

    monkeypatch.setattr(up, "_launch_postgres", launch)
    assert not up._restart_exited_servers(running)
    assert running.postgres_server is server
    assert wait_until(lambda: up._restart_exited_servers(running))
    assert running.postgres_server.url == "new"


def test_restarts_wait_longer_each_time_but_not_longer_than_ten_seconds() -> None:
    schedule, now, delays = RestartSchedule(0.0), 1.0, []
    for _ in range(7):
        delay = schedule.plan_restart(now)
        assert delay is not None
        assert schedule.plan_restart(now) is None
        assert schedule.begin_attempt(now) is (delay == 0)
        now += delay
        assert delay == 0 or schedule.begin_attempt(now)
        delays.append(delay)
    assert delays == [0, 1, 2, 4, 8, 10, 10]
    assert schedule.plan_restart(now + restart_schedule.STABLE_AFTER_SECONDS + 1) == 0


def test_settings_that_have_not_changed_need_no_space(tmp_path: Path, full_disk: Callable[[bool], None]) -> None:
    files.write_private_if_changed(tmp_path / "valkey.conf", "port 1\n")
    (tmp_path / "data").mkdir()
    postgres._write_settings(tmp_path / "data", 5432, None, ephemeral=False)
    before = (tmp_path / "data" / "llm-bus.conf").read_text()
    full_disk(True)
    files.write_private_if_changed(tmp_path / "valkey.conf", "port 1\n")
    postgres._write_settings(tmp_path / "data", 5432, None, ephemeral=False)
    # Changed settings replace the file or leave it: without it PostgreSQL would listen on another port.
    with pytest.raises(OSError, match="No space left"):
        postgres._write_settings(tmp_path / "data", 5433, None, ephemeral=False)
    assert (tmp_path / "data" / "llm-bus.conf").read_text() == before


def test_a_log_that_cannot_be_copied_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "web.log"
    log.write_bytes(b"x" * 1000)

    def copy_half(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:500])
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("shutil.copyfile", copy_half)
    files.truncate_oversized_log(log, max_bytes=999)
    assert log.stat().st_size == 0
    assert [path.name for path in tmp_path.iterdir()] == ["web.log"]


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 300 MB."""
    folder = make_traversable_folder() / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_TMPFS_BYTES},mode=0755", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode != 0:
        pytest.skip("Mounting a small file system needs root.")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(folder: Path) -> None:
    """Use up all space of the file system."""
    with (folder / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(b"\0" * 65536)


def _use_up_wal(bus: BusProcess) -> None:
    """Write to the write-ahead log until there is no room for its next segment, which ends PostgreSQL."""
    url = bus.startup_info["database_url"]
    with contextlib.suppress(psycopg.Error), psycopg.connect(url, connect_timeout=3, autocommit=True) as conn:
        while True:
            conn.execute("SELECT pg_logical_emit_message(true, 'filler', repeat('x', 1000000))")


@pytest.mark.exhaustive
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="tmpfs is a file system of Linux.")
def test_the_bus_serves_again_after_a_full_disk_without_help(small_disk: Path) -> None:
    data = small_disk / "data"
    data.mkdir(mode=0o711)
    reserve_ports(data)
    with running_bus(data) as bus:
        token = bus.startup_info["agents"][0]["token"]
        gateway = bus.startup_info["gateway_url"]

        def claim() -> bool:
            return (
                run_command(
                    "agent", "claim", "adr", LLM_BUS_TOKEN=token, LLM_BUS_URL=gateway, LLM_BUS_DATA=str(data)
                ).returncode
                == 0
            )

        assert claim()
        _fill(small_disk)
        postmaster = bus.get_child("postgres", "-D")
        victims = [bus.get_child(*words) for words in (("workers",), ("valkey-server",), ("mcp_gateway",))]
        while is_running(postmaster):
            _use_up_wal(bus)
        # Processes end too, while nothing can be written.
        for victim in victims:
            victim.kill()
        wait_until(lambda: not claim() and bus.process.poll() is None)
        # Several restarts of PostgreSQL fail.
        deadline = time.monotonic() + 12
        wait_until(lambda: bus.process.poll() is not None or time.monotonic() > deadline, 30)
        assert bus.process.poll() is None
        (small_disk / "filler").unlink()
        freed_at = time.monotonic()
        wait_until(claim, _MAX_RECOVERY_SECONDS)
        print(f"served again {time.monotonic() - freed_at:.1f} s after there was space")
        wait_until(lambda: run_command("doctor", "--data", str(data)).returncode == 0)
        wait_until(lambda: (data / "runtime.json").exists())
