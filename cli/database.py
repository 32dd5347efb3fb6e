"""The engine, for commands that make one change or read one thing and end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bus.coordination.change_notifications import NotificationPublisher
from bus.db import Connection, Database
from cli.runtime import settings_for_cli


@contextmanager
def transaction(data: Path | None) -> Iterator[Connection]:
    """A connection to the bus that the command is meant for; what was done commits when the block ends.

    Raises:
        CliError: no bus runs here and DATABASE_URL is not set.
        BusError: `unavailable` when the database does not answer.
    """
    settings = settings_for_cli(data)
    hints = NotificationPublisher(settings.redis_url)
    database = Database(settings.database_url, pool_size=1, application_name="llm-bus cli", on_commit=hints.publish)
    try:
        with database.transaction() as conn:
            yield conn
    finally:
        database.close()
        hints.close()
