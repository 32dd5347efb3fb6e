"""Cleanup of a PostgreSQL data folder after an unclean shutdown, and the place of the Unix socket."""

import signal
import time
from pathlib import Path

import psutil

from cli.embedded.child import StartFailedError

# sun_path holds 104 bytes on macOS and 108 on Linux, with the terminating zero.
_MAX_SOCKET_PATH_BYTES = 103


def choose_socket_dir(server_dir: Path, port: int) -> Path | None:
    """Return the folder of the Unix socket; None if the path is too long for a socket, or needs quoting."""
    folder = server_dir / "run"
    path = str(folder / f".s.PGSQL.{port}")
    plain = all(character.isalnum() or character in "/._-+@ " for character in path)
    return folder if plain and len(path.encode()) <= _MAX_SOCKET_PATH_BYTES else None


def stop_orphaned_postmaster(data: Path) -> None:
    """Stop a postmaster that lost its parent and remove stale lock files, so that a new one can start in `data`.

    PostgreSQL clears a stale pid file itself only if no process has that id; after a reboot another program may
    have it. So this checks whether the process is a postmaster of `data`.

    Raises:
        StartFailedError: processes of an earlier PostgreSQL cannot be ended.
    """
    pid_file = data / "postmaster.pid"
    if not pid_file.exists():
        return
    postmaster = _find_postmaster(pid_file, data)
    if postmaster is not None:
        for number, seconds in ((signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0)):
            try:
                postmaster.send_signal(number)
                postmaster.wait(seconds)
            except psutil.TimeoutExpired:
                continue
            except psutil.NoSuchProcess:
                pass
            break
    _terminate_backends(data)
    pid_file.unlink(missing_ok=True)
    for stale in (data.parent / "run").glob(".s.PGSQL.*"):
        stale.unlink(missing_ok=True)


def _find_postmaster(pid_file: Path, data: Path) -> psutil.Process | None:
    try:
        process = psutil.Process(int(pid_file.read_text(encoding="utf-8").split("\n", 1)[0]))
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None
    return process if _is_postgres_in(process, data) else None


def _terminate_backends(data: Path) -> None:
    """Wait until the backends of a killed postmaster have ended, and kill those that have not.

    A postmaster that starts while they still write would destroy the cluster. PostgreSQL's own guard
    against that is in the pid file, which is removed next.
    """
    deadline = time.monotonic() + 15
    while backends := [process for process in psutil.process_iter() if _is_postgres_in(process, data)]:
        late = time.monotonic() - deadline
        if late > 5:
            raise StartFailedError(f"Processes of an earlier PostgreSQL still use {data}: {backends}. End them first.")
        if late > 0:
            for process in backends:
                try:
                    process.kill()
                except psutil.Error:
                    continue
        time.sleep(0.05)


def _is_postgres_in(process: psutil.Process, data: Path) -> bool:
    try:
        # Every process of a cluster has the data folder as its working directory.
        return "postgres" in process.name().lower() and Path(process.cwd()) == data.resolve()
    except (psutil.Error, OSError):
        return False
