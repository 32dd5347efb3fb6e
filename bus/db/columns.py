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

TIME = sa.DateTime(timezone=True)
CLOCK = sa.text("clock_timestamp()")
FALSE = sa.text("false")
EMPTY = sa.text("''")


def id_column() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True)


def created_at() -> sa.Column[object]:
    return sa.Column("created_at", TIME, nullable=False, server_default=CLOCK)


def key_column(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, primary_key=True, autoincrement=False)


def one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


def length(column: str, most: int, least: int = 1) -> str:
    return f"char_length({column}) BETWEEN {least} AND {most}"
