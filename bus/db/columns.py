"""Shared parts of the table definitions: metadata with its naming convention, common columns and checks."""

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

TIMESTAMPTZ = sa.DateTime(timezone=True)
CLOCK_TIMESTAMP = sa.text("clock_timestamp()")
FALSE_DEFAULT = sa.text("false")
EMPTY_DEFAULT = sa.text("''")


def id_column() -> sa.Column[int]:
    """Create the column `id`, numbered by the database."""
    return sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True)


def created_at_column() -> sa.Column[object]:
    """Create the column `created_at`, set by the database's clock."""
    return sa.Column("created_at", TIMESTAMPTZ, nullable=False, server_default=CLOCK_TIMESTAMP)


def primary_key_column(name: str) -> sa.Column[int]:
    """Create a part of a primary key whose value the statement supplies."""
    return sa.Column(name, sa.BigInteger, primary_key=True, autoincrement=False)


def one_of_check(column: str, values: tuple[str, ...]) -> str:
    """Return the SQL condition that a text column holds one of these values."""
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


def length_check(column: str, maximum: int, minimum: int = 1) -> str:
    """Return the SQL condition on the number of characters of a text column; both bounds are included."""
    return f"char_length({column}) BETWEEN {minimum} AND {maximum}"
