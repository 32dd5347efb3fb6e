"""A transaction for commands that read or change the database once and exit."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bus.coordination.change_notifications import NotificationPublisher
from bus.db import Connection, Database
from cli.runtime import settings_for_cli


@contextmanager
def transaction(data: Path | None) -> Iterator[Connection]:
    """Open a transaction in the database of the bus; it commits when the block ends.

    Raises:
        CliError: no bus runs here and DATABASE_URL is not set.
        BusError: `unavailable` if the database does not answer.
    """
    settings = settings_for_cli(data)
    publisher = NotificationPublisher(settings.redis_url)
    database = Database(settings.database_url, pool_size=1, application_name="llm-bus cli", on_commit=publisher.publish)
    try:
        with database.transaction() as conn:
            yield conn
    finally:
        database.close()
        publisher.close()
