"""Values that the fields of forms suggest: names of participants and lanes of the project of the page."""

from contextlib import suppress

import psycopg
from flask import g

from bus.errors import BusError
from bus.tenancy import participant_queries
from bus.tenancy.participant_queries import Suggestions
from webapp.auth import viewer
from webapp.context import connection


def suggested_values() -> Suggestions:
    """The suggestions for the project of the page; none if they cannot be read, since the fields work without."""
    project = g.get("bus_project")
    owner = viewer()
    if project is not None and owner is not None:
        with suppress(BusError, psycopg.Error), connection() as conn:
            return participant_queries.list_suggestions(conn, project.id, owner.id)
    return Suggestions([], [])
