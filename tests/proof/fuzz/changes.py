"""Detection of every row that a call changes, by triggers; what a rolled back call wrote leaves no trace."""

from psycopg import sql

from bus.db import Connection, Database
from bus.tables import metadata

# Written in the background or by any request: presence, posts that were shown, sessions in use, heartbeats.
_BACKGROUND_TABLES = frozenset({"agent_session", "presence", "process", "seen_delivery", "session", "service_sample"})
# Of these tables, the time of last use and the time when a post was shown are written in the background.
_COLUMNS = {"token": "revoked_at", "delivery": "acked_at"}
_SETUP_SQL = """
    CREATE TABLE fuzz_change (name text NOT NULL);
    CREATE FUNCTION fuzz_record_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO public.fuzz_change VALUES (TG_TABLE_NAME);
        RETURN NULL;
    END $$;
"""


def install_change_log(database: Database) -> None:
    """Record each changed row of each table in `fuzz_change`."""
    with database.transaction() as conn:
        conn.raw.execute(_SETUP_SQL)
        for table in metadata.tables.keys() - _BACKGROUND_TABLES:
            update = (
                sql.SQL("UPDATE OF {}").format(sql.Identifier(_COLUMNS[table]))
                if table in _COLUMNS
                else sql.SQL("UPDATE")
            )
            conn.raw.execute(
                sql.SQL(
                    "CREATE TRIGGER fuzz_change AFTER INSERT OR DELETE OR {} ON {}"
                    " FOR EACH ROW EXECUTE FUNCTION fuzz_record_change()"
                ).format(update, sql.Identifier(table))
            )


def take_changes(conn: Connection) -> set[str]:
    """Return the tables that changed since the last call."""
    return {name for (name,) in conn.fetch_all("DELETE FROM fuzz_change RETURNING name")}
