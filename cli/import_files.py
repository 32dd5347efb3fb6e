"""Transactions of `llm-bus import beads` and `import agent-mail`, and the owner as the caller."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from bus.coordination.change_notifications import NotificationPublisher
from bus.ctx import Ctx
from bus.db import Database
from bus.imports.transactions import Transactions
from bus.tenancy import owner_participation, projects
from cli.runtime import settings_for_cli


@contextmanager
def transactions(data: Path | None) -> Iterator[Transactions]:
    """Yield what opens a transaction in the database of the bus."""
    settings = settings_for_cli(data)
    publisher = NotificationPublisher(settings.redis_url)
    database = Database(
        settings.database_url, pool_size=1, application_name="llm-bus import", on_commit=publisher.publish
    )
    with closing(publisher), closing(database):
        yield database.transaction


def owner_of_project(open_transaction: Transactions, name: str) -> Ctx:
    """Return the owner of a project as a caller in it.

    Raises:
        BusError: `not_found`.
    """
    with open_transaction() as conn:
        project = projects.get_by_name(conn, name)
        return owner_participation.get_or_create_owner_context(conn, project.owner_id, project.id)
