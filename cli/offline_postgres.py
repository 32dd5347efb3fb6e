"""The PostgreSQL of a data folder, started for one command while no bus runs there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli import data_dir
from cli.embedded import child, postgres
from cli.exit_codes import CliError, ExitCode
from cli.files import start_new_log
from cli.ports import PortAllocator
from cli.runtime import DatabaseUrls


@contextmanager
def running_postgres(data: Path) -> Iterator[DatabaseUrls]:
    """Start the PostgreSQL of the data folder, which is created if needed; yield its URLs, and stop it afterwards.

    Raises:
        CliError: a bus runs in the folder, or PostgreSQL did not start.
    """
    data_dir.create(data)
    lock = data_dir.DataDirLock(data)
    if not lock.acquire():
        raise CliError(f"A bus runs in {data}. Stop it, or choose a new folder with --data.", ExitCode.RUNNING)
    try:
        server = postgres.launch(
            data / "postgres",
            port=PortAllocator(data / "ports.json").assign("postgres"),
            log_path=start_new_log(data / "logs", "postgres"),
            account=data_dir.server_account(data),
        )
        try:
            postgres.wait_until_ready(server)
            yield DatabaseUrls(server.application_url, server.url)
        finally:
            postgres.stop(server)
    except child.StartFailedError as error:
        raise CliError(str(error)) from error
    finally:
        lock.release()
