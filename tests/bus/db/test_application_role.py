"""The role of the processes: what it is refused, how it is created, and the scope of its transactions."""

import contextlib
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from bus.coordination import sequences
from bus.db import Connection, Database, application_role, migrate
from bus.tables import COORDINATION_TABLES
from cli.embedded import postgres
from tests import scenarios, servers
from tests.factories import make_agent

_APPEND_ONLY = ("audit", "credit_entry", "event")
_CHANGES = {
    "update": "UPDATE {} SET at = at",
    "update of no row": "UPDATE {} SET at = at WHERE false",
    "upsert": "INSERT INTO {0} OVERRIDING SYSTEM VALUE SELECT * FROM {0} ON CONFLICT DO UPDATE SET at = excluded.at",
    "delete": "DELETE FROM {}",
    "delete of no row": "DELETE FROM {} WHERE false",
    "merge update": "MERGE INTO {} t USING (SELECT 1) AS s ON true WHEN MATCHED THEN UPDATE SET at = t.at",
    "merge delete": "MERGE INTO {} t USING (SELECT 1) AS s ON true WHEN MATCHED THEN DELETE",
    "truncate": "TRUNCATE {}",
    "lock for update": "SELECT FROM {} FOR UPDATE",
    "disable its triggers": "ALTER TABLE {} DISABLE TRIGGER USER",
    "new trigger": "CREATE TRIGGER planted BEFORE INSERT ON {} EXECUTE FUNCTION guard_append_only()",
    "drop": "DROP TABLE {}",
}
_REFUSED_ACTS = {
    "create a table": "CREATE TABLE planted (id integer)",
    "create a function": "CREATE FUNCTION planted() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "replace a function": "CREATE OR REPLACE FUNCTION bus_lock_clock(p_project bigint) RETURNS void LANGUAGE sql AS ''",
    "drop a function": "DROP FUNCTION bus_claim",
    "drop a table": "DROP TABLE presence",
    "add a column": "ALTER TABLE post ADD COLUMN planted integer",
    "drop an index": "DROP INDEX post_tag_idx",
    "truncate": "TRUNCATE presence",
    "switch row security off": "ALTER TABLE post DISABLE ROW LEVEL SECURITY",
    "drop a policy": "DROP POLICY project_scope ON post",
    "add a policy": "CREATE POLICY planted ON post USING (true)",
    "change the schema version": "UPDATE alembic_version SET version_num = '9999'",
    "create a schema": "CREATE SCHEMA planted",
    "create a role": "CREATE ROLE planted",
    "become a superuser": "ALTER ROLE CURRENT_USER SUPERUSER",
    "bypass row security": "ALTER ROLE CURRENT_USER BYPASSRLS",
    "become the owner": f"SET ROLE {postgres.ROLE}",
    "disable all triggers": "SET session_replication_role = replica",
    "read a file of the server": "COPY presence FROM '/etc/passwd'",
    "run a program": "COPY presence TO PROGRAM 'true'",
    "read password hashes": "SELECT FROM pg_authid",
}


@pytest.fixture(scope="module")
def _role_db(shared_database_url: str) -> Iterator[Database]:
    with closing(Database(servers.application_url(shared_database_url), pool_size=1)) as database:
        yield database


@pytest.fixture
def conn(_role_db: Database) -> Iterator[Connection]:
    """A connection that has signed in as the role, unlike that of other tests, which can return to the owner."""
    with _role_db.connection() as connection, connection.raw.transaction(force_rollback=True):
        yield connection


@pytest.mark.parametrize("table", _APPEND_ONLY)
@pytest.mark.parametrize("change", _CHANGES)
def test_the_role_is_refused_changes_of_append_only_tables(conn: Connection, table: str, change: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.raw.transaction():
        conn.raw.execute(
            _CHANGES[change].format(table).replace("ON CONFLICT DO", f"ON CONFLICT ON CONSTRAINT {table}_pkey DO")
        )


def test_every_table_with_a_guard_is_among_those(conn: Connection) -> None:
    guarded = conn.fetch_all(
        "SELECT DISTINCT t.tgrelid::regclass::text FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid"
        " WHERE p.proname = 'guard_append_only' ORDER BY 1"
    )
    assert [table for (table,) in guarded] == list(_APPEND_ONLY)


@pytest.mark.parametrize("act", _REFUSED_ACTS)
def test_the_role_is_refused_what_is_not_rows(conn: Connection, act: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.raw.transaction():
        conn.raw.execute(_REFUSED_ACTS[act])


def test_a_function_with_the_rights_of_the_owner_resolves_no_name_of_the_caller(conn: Connection) -> None:
    """A schema or a temporary table of the caller could otherwise stand in for a table of the bus."""
    functions = conn.fetch_all("SELECT proname, proconfig, proacl::text FROM pg_proc WHERE prosecdef")
    assert [name for name, _, _ in functions] == ["bus_purge_step"]
    (_, settings, privileges) = functions[0]
    assert settings == ["search_path=pg_catalog, public, pg_temp"]
    # An entry without a name is PUBLIC.
    assert "{=" not in privileges
    assert ",=" not in privileges


@pytest.mark.parametrize("table", sorted({table.name for table in COORDINATION_TABLES} - {"event"}))
def test_every_coordination_table_but_the_ledger_has_row_security(conn: Connection, table: str) -> None:
    policies = conn.fetch_all(
        "SELECT c.relrowsecurity, p.policyname, p.cmd FROM pg_class c JOIN pg_policies p ON p.tablename = c.relname"
        " WHERE c.oid = %s::regclass ORDER BY 2",
        (table,),
    )
    assert policies == [(True, "project_scope", "ALL"), (True, "read_all", "SELECT")]


# With the transaction that wrote each row, so that an update to the same values is a change.
_ROWS_SQL = "SELECT md5(string_agg(concat(t, t.xmin), '|' ORDER BY t::text)) FROM {} t WHERE project_id = %s"
_FILL_SQL = """
    INSERT INTO ack_cursor (project_id, participation_id, seq) VALUES (%(project)s, %(me)s, 1);
    INSERT INTO agent_session (project_id, participation_id, key, started_at, last_seen)
        VALUES (%(project)s, %(me)s, 'k', now(), now());
    INSERT INTO cursor (project_id, participation_id, seq) VALUES (%(project)s, %(me)s, 1);
    INSERT INTO idempotency (project_id, participation_id, key, fingerprint) VALUES (%(project)s, %(me)s, 'k', '');
    INSERT INTO imported_id (project_id, kind, original_id, number) VALUES (%(project)s, 'event', '1', 1);
    INSERT INTO meter_mark (project_id, metered_seq) VALUES (%(project)s, 1);
    INSERT INTO project_import (project_id, original_id) VALUES (%(project)s, 1);
    INSERT INTO report (project_id) VALUES (%(project)s);
    INSERT INTO search_document (project_id, kind, id, words) VALUES (%(project)s, 'post', 1, 'word');
    INSERT INTO seen_delivery (project_id, participation_id, post_id) VALUES (%(project)s, %(me)s, 1);
    INSERT INTO session_cursor (project_id, participation_id, key, seq) VALUES (%(project)s, %(me)s, 'k', 1);
    INSERT INTO session_post (project_id, participation_id, key, post_id) VALUES (%(project)s, %(me)s, 'k', 1);
    INSERT INTO tally (project_id, grain, figure, start, key, n) VALUES (%(project)s, 'hour', 'events', now(), '', 1);
    INSERT INTO tally_mark (project_id) VALUES (%(project)s);
    INSERT INTO waiter (project_id, participation_id, surface, alive_until) VALUES (%(project)s, %(me)s, 'a', now());
"""


def _create_full_scenario(conn: Connection) -> scenarios.Scenario:
    """Create a project with a row in every coordination table."""
    scene = scenarios.create_scenario(conn)
    params = {"project": scene.project.id, "me": scene.caller.ctx.participation_id}
    for statement in filter(str.strip, _FILL_SQL.split(";")):
        conn.execute(statement, params)
    return scene


@pytest.fixture(scope="module")
def two_projects() -> Iterator[tuple[Connection, scenarios.Scenario, scenarios.Scenario]]:
    """Two projects with rows in every coordination table, in a database of their own."""
    with (
        servers.cloned_database() as url,
        closing(Database(servers.application_url(url), pool_size=1)) as database,
        database.connection() as connection,
    ):
        with connection.raw.transaction():
            mine, theirs = _create_full_scenario(connection), _create_full_scenario(connection)
        yield connection, mine, theirs


_PLANTED = {
    "update": "UPDATE {0} SET project_id = project_id",
    "delete": "DELETE FROM {0}",
    "move": "UPDATE {0} SET project_id = %(theirs)s WHERE project_id = %(mine)s",
    "copy": "INSERT INTO {0} OVERRIDING USER VALUE SELECT (t).* FROM (SELECT jsonb_populate_record("
    "x, jsonb_build_object('project_id', %(theirs)s::bigint)) AS t FROM {0} x WHERE project_id = %(mine)s) AS c",
}
_ENTRANCES: dict[str, Callable[[Connection, scenarios.Scenario], object]] = {
    "a call": lambda conn, scene: conn.execute(
        "SELECT bus_authenticate(%s, %s, false)", (scene.caller.ctx.participation_id, scene.caller.ctx.token_id)
    ),
    "a job": lambda conn, scene: conn.execute("SELECT bus_lock_clock(%s)", (scene.project.id,)),
}


@pytest.mark.parametrize(
    ("planted", "table"),
    [
        (planted, table.name)
        for planted in _PLANTED
        for table in sorted(COORDINATION_TABLES, key=lambda table: table.name)
        # The ledger has no row security, so that its filters keep their plans.
        if (planted, table.name) != ("copy", "event")
    ],
)
def test_a_statement_without_its_project_condition_writes_in_no_other_project(
    two_projects: tuple[Connection, scenarios.Scenario, scenarios.Scenario], planted: str, table: str
) -> None:
    conn, mine, theirs = two_projects
    rows = _ROWS_SQL.format(table)
    with conn.raw.transaction(force_rollback=True):
        before = conn.fetch_one(rows, (theirs.project.id,))
        assert before != (None,)
        _ENTRANCES["a call"](conn, mine)
        refusal = None
        if table == "event":
            refusal = "permission denied"
        elif planted in ("move", "copy"):
            refusal = "row-level security"
        # Other updates and deletes leave out the rows of other projects.
        with (
            pytest.raises(psycopg.errors.InsufficientPrivilege, match=refusal) if refusal else contextlib.nullcontext(),
            conn.raw.transaction(),
        ):
            conn.raw.execute(_PLANTED[planted].format(table), {"mine": mine.project.id, "theirs": theirs.project.id})
        assert conn.fetch_one(rows, (theirs.project.id,)) == before


@pytest.mark.parametrize("entrance", _ENTRANCES)
def test_what_a_transaction_of_one_project_writes_ends_at_its_project(
    two_projects: tuple[Connection, scenarios.Scenario, scenarios.Scenario], entrance: str
) -> None:
    conn, mine, _ = two_projects
    with conn.raw.transaction(force_rollback=True):
        _ENTRANCES[entrance](conn, mine)
        changed = conn.fetch_all("UPDATE post SET tag = 'planted' RETURNING project_id")
        assert {project for (project,) in changed} == {mine.project.id}


def test_the_scope_ends_with_the_transaction(db: Database) -> None:
    with db.transaction() as conn:
        mine, theirs = scenarios.create_scenario(conn), scenarios.create_scenario(conn)
    with db.connection() as conn:
        with conn.raw.transaction():
            _ENTRANCES["a call"](conn, mine)
            assert conn.execute("UPDATE post SET tag = 'a' WHERE project_id = %s", (theirs.project.id,)) == 0
        assert conn.execute("UPDATE post SET tag = 'a' WHERE project_id = %s", (theirs.project.id,)) > 0


# Creation of the role


@pytest.fixture
def new_role() -> Iterator[Callable[..., str]]:
    """Names of roles that the test creates, and of those that it wants to exist; dropped after the database."""
    names: list[str] = []

    def make(attributes: str | None = None) -> str:
        names.append(f"role_{uuid.uuid4().hex[:12]}")
        if attributes is not None:
            with psycopg.connect(servers.maintenance_url(), autocommit=True) as conn:
                conn.execute(
                    sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'test' " + attributes).format(sql.Identifier(names[-1]))
                )
        return names[-1]

    yield make
    with psycopg.connect(servers.maintenance_url(), autocommit=True) as conn:
        # In reverse: a role that another one created is its member.
        for name in reversed(names):
            conn.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))


def _as_role(url: str, name: str, password: str = "test") -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{name}:{password}@{parts.hostname}:{parts.port}"))


def _give_database(url: str, owner: str) -> None:
    name = sql.Identifier(urlsplit(url).path.removeprefix("/"))
    with psycopg.connect(servers.maintenance_url(), autocommit=True) as conn:
        conn.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, sql.Identifier(owner)))


def _inspect(url: str) -> application_role.RoleReport:
    with psycopg.connect(url) as conn:
        return application_role.inspect(conn)


def test_an_upgrade_creates_the_role_in_a_database_that_had_none(
    new_role: Callable[..., str], empty_database_url: str
) -> None:
    migrate.migrate(empty_database_url)
    with closing(Database(empty_database_url, pool_size=1)) as db, db.transaction() as conn:
        agent = make_agent(conn)
        assert sequences.claim(conn, agent.ctx, "adr").number == 1
    application = _as_role(empty_database_url, new_role(), "a'b%25c")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(application)
    migrate.migrate(empty_database_url, application_url=application)
    with closing(Database(application, pool_size=1)) as db, db.transaction() as conn:
        assert sequences.claim(conn, agent.ctx, "adr").number == 2
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.raw.execute("CREATE TEMPORARY TABLE event (seq bigint)")
    report = _inspect(application)
    assert not report.owns_schema
    assert (report.excesses, report.missing) == ((), ())


def test_an_owner_that_may_create_roles_needs_no_superuser(
    new_role: Callable[..., str], empty_database_url: str
) -> None:
    deployer, name = new_role("CREATEROLE"), new_role()
    _give_database(empty_database_url, deployer)
    owner, application = _as_role(empty_database_url, deployer), _as_role(empty_database_url, name)
    migrate.migrate(owner, application_url=application)
    migrate.migrate(owner, application_url=application)
    report = _inspect(application)
    assert (report.owns_schema, report.excesses, report.missing) == (False, (), ())
    owner_report = _inspect(owner)
    assert owner_report.owns_schema
    assert not owner_report.is_superuser
    servers.drop_database(urlsplit(empty_database_url).path.removeprefix("/"))


def test_an_owner_that_may_not_create_roles_works_alone_and_is_told_what_to_do(
    new_role: Callable[..., str], empty_database_url: str
) -> None:
    deployer, name = new_role("NOCREATEROLE"), new_role()
    _give_database(empty_database_url, deployer)
    owner = _as_role(empty_database_url, deployer)
    with pytest.raises(application_role.RoleNotCreatedError, match=f"The role {name} of DATABASE_URL does not exist"):
        migrate.migrate(owner, application_url=_as_role(empty_database_url, name))
    # As on platforms with one role: everything works as the owner.
    migrate.migrate(owner, application_url=owner)
    with closing(Database(owner, pool_size=1)) as db, db.transaction() as conn:
        assert sequences.claim(conn, make_agent(conn).ctx, "adr").number == 1
    assert _inspect(owner).owns_schema
    servers.drop_database(urlsplit(empty_database_url).path.removeprefix("/"))


def test_a_role_that_an_administrator_created_gets_exactly_its_privileges(
    new_role: Callable[..., str], database_url: str
) -> None:
    name = new_role("NOCREATEDB")
    application = _as_role(database_url, name)
    role = sql.Identifier(name)
    assert "INSERT on ack_cursor" in _inspect(application).missing
    with psycopg.connect(database_url) as conn:
        conn.execute(sql.SQL("GRANT ALL ON ALL TABLES IN SCHEMA public TO {}").format(role))
        conn.execute(sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(role))
    excesses = " ".join(_inspect(application).excesses)
    for table in _APPEND_ONLY:
        assert f"{table} (UPDATE, DELETE, TRUNCATE, TRIGGER)" in excesses
    migrate.migrate(database_url, application_url=application)
    assert (_inspect(application).excesses, _inspect(application).missing) == ((), ())


def test_tables_and_functions_of_later_migrations_are_granted_by_default(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        conn.execute("CREATE TABLE later (id bigint GENERATED ALWAYS AS IDENTITY, note text)")
        conn.execute("CREATE FUNCTION later() RETURNS integer LANGUAGE sql AS 'SELECT 1'")
    with psycopg.connect(servers.application_url(database_url)) as conn:
        conn.execute("INSERT INTO later (note) VALUES ('a')")
        conn.execute("UPDATE later SET note = 'b'")
        assert conn.execute("DELETE FROM later RETURNING id, note, later()").fetchone() == (1, "b", 1)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("TRUNCATE later")


def test_a_migration_without_changes_writes_no_privileges(database_url: str) -> None:
    query = "SELECT array_agg(xmin::text || oid ORDER BY oid) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    with psycopg.connect(database_url, autocommit=True) as conn:
        before = conn.execute(query).fetchone()
        migrate.migrate(database_url, application_url=servers.application_url(database_url))
        assert conn.execute(query).fetchone() == before


def test_the_attributes_that_a_superuser_gave_are_reported(new_role: Callable[..., str], database_url: str) -> None:
    name = new_role("CREATEROLE CREATEDB BYPASSRLS")
    application = _as_role(database_url, name)
    migrate.migrate(database_url, application_url=application)
    assert _inspect(application).excesses == (
        "it bypasses row security",
        "it may create roles",
        "it may create databases",
    )
