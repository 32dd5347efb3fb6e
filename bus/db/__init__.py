"""The database: connections, transactions, schema version and migrations."""

from bus.db.connection import Connection, Database, Params, Row, connect, from_row, row_builder
from bus.db.error_mapping import raise_as_bus_error

__all__ = ["Connection", "Database", "Params", "Row", "connect", "from_row", "raise_as_bus_error", "row_builder"]
