"""The role that the processes connect as, apart from the owner of the schema.

It reads and writes rows. It owns nothing, so it cannot change the schema, disable a trigger or bypass row security, and
its privileges do not include UPDATE, DELETE and TRUNCATE of append-only tables. `migrate` creates it and grants its
privileges (docs/decisions/0044-application-role.md).
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

# Tables on which the trigger function guard_append_only refuses UPDATE: the ledger, the audit log, credit entries.
_APPEND_ONLY = (
    "EXISTS (SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid"
    " WHERE t.tgrelid = c.oid AND p.proname = 'guard_append_only')"
)
# The privileges of each table; tables of extensions and of other owners are left alone.
_WANTED_PRIVILEGES = f"""
    SELECT c.oid, c.relname,
           CASE WHEN c.relname = 'alembic_version' THEN ARRAY['SELECT']
                WHEN {_APPEND_ONLY} THEN ARRAY['INSERT', 'SELECT']
                ELSE ARRAY['DELETE', 'INSERT', 'SELECT', 'UPDATE'] END AS privileges
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
      AND c.relowner = (SELECT v.relowner FROM pg_class v WHERE v.oid = to_regclass('public.alembic_version'))
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
"""
# Runs at the end of each migration. Privileges that are right are left alone, since each GRANT writes to the catalogue.
_GRANT_SQL = """
DO $grant$
DECLARE
    v_role name := {role};
    v_table record;
    v_function regprocedure;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', v_role);
    FOR v_table IN
        SELECT w.relname, w.privileges FROM ({wanted}) AS w
        WHERE w.privileges IS DISTINCT FROM (
            SELECT array_agg(a.privilege_type::text ORDER BY a.privilege_type::text)
            FROM pg_class c CROSS JOIN aclexplode(c.relacl) AS a
            WHERE c.oid = w.oid AND a.grantee = v_role::regrole)
    LOOP
        EXECUTE format('REVOKE ALL ON %I FROM %I', v_table.relname, v_role);
        EXECUTE format('GRANT %s ON %I TO %I', array_to_string(v_table.privileges, ', '), v_table.relname, v_role);
    END LOOP;
    -- The functions that act with the rights of the owner are for this role alone.
    FOR v_function IN
        SELECT p.oid FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef AND pg_has_role(p.proowner, 'USAGE')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', v_function);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', v_function, v_role);
    END LOOP;
    -- For tables and functions of later migrations.
    EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA public'
                   ' GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO %I', v_role);
    EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT EXECUTE ON FUNCTIONS TO %I', v_role);
    -- A database from before PostgreSQL 15 lets every role create tables, and all versions let it create temporary
    -- ones, which would stand in for the tables of the same name.
    IF has_schema_privilege(v_role, 'public', 'CREATE') THEN
        REVOKE CREATE ON SCHEMA public FROM PUBLIC;
        EXECUTE format('REVOKE CREATE ON SCHEMA public FROM %I', v_role);
    END IF;
    IF has_database_privilege(v_role, current_database(), 'TEMPORARY')
       AND (SELECT pg_has_role(d.datdba, 'USAGE') FROM pg_database d WHERE d.datname = current_database()) THEN
        EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    END IF;
END $grant$;
"""


class RoleNotCreatedError(Exception):
    """The role does not exist, and the connected role may not create it."""


@dataclass(frozen=True)
class RoleReport:
    """What the connected role can do, compared with what the processes need.

    Attributes:
        name: the role.
        is_superuser: whether it is one.
        owns_schema: whether it owns the tables, or may act as the role that does.
        excesses: what it can do beyond reading and writing rows; empty for a sound application role.
        missing: privileges that the processes need and it lacks.
    """

    name: str
    is_superuser: bool
    owns_schema: bool
    excesses: tuple[str, ...]
    missing: tuple[str, ...]


def grants_fingerprint() -> str:
    """Return the hash of what `create_or_update` grants."""
    return f"sha256:{hashlib.sha256((_GRANT_SQL + _WANTED_PRIVILEGES).encode()).hexdigest()}"


def find_application_role(application_url: str, owner_url: str) -> tuple[str, str] | None:
    """Return name and password of the role of `application_url`, or None if both URLs name the same role."""
    parts = conninfo_to_dict(application_url)
    name = str(parts.get("user") or "")
    if not name or name == conninfo_to_dict(owner_url).get("user"):
        return None
    return name, str(parts.get("password") or "")


def create_or_update(conn: psycopg.Connection[Any], name: str, password: str) -> None:
    """Create the role if there is none, and give it exactly the privileges that the processes need.

    Args:
        conn: of the owner of the schema, in the transaction of the migration.
        name: the role of DATABASE_URL.
        password: stored for a new role; one that exists keeps its own. Empty: it signs in without one.

    Raises:
        RoleNotCreatedError: there is no such role, and the owner may not create roles.
    """
    role = sql.Identifier(name)
    if conn.execute("SELECT FROM pg_roles WHERE rolname = %s", (name,)).fetchone() is None:
        statement = sql.SQL("CREATE ROLE {} LOGIN NOINHERIT").format(role)
        if password:
            # A hash, as psql sends it: the server may log the statement.
            hashed = conn.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
            statement += sql.SQL(" PASSWORD {}").format(sql.Literal(hashed))
        try:
            with conn.transaction():
                conn.execute(statement)
        except psycopg.errors.InsufficientPrivilege as error:
            raise RoleNotCreatedError(
                f"The role {name} of DATABASE_URL does not exist, and {conn.info.user} of MIGRATION_DATABASE_URL may"
                f" not create it. Create it as a superuser (CREATE ROLE {name} LOGIN PASSWORD '...'), or unset"
                " MIGRATION_DATABASE_URL and let the processes connect as the owner of the schema."
            ) from error
    conn.execute(sql.SQL(_GRANT_SQL).format(role=sql.Literal(name), wanted=sql.SQL(_WANTED_PRIVILEGES)))


_INSPECT_SQL = f"""
    SELECT r.rolname, r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolcreatedb,
           coalesce((SELECT pg_has_role(c.relowner, 'MEMBER') FROM pg_class c
                     WHERE c.oid = to_regclass('public.event')),
                    -- Before the first migration: the role that would own the tables.
                    has_schema_privilege('public', 'CREATE')),
           has_schema_privilege('public', 'CREATE') OR has_database_privilege(current_database(), 'CREATE'),
           has_database_privilege(current_database(), 'TEMPORARY'),
           ARRAY(SELECT c.relname || ' (' || array_to_string(ARRAY(
                     SELECT a.privilege
                     FROM unnest(string_to_array('UPDATE DELETE TRUNCATE TRIGGER', ' ')) AS a (privilege)
                     WHERE has_table_privilege(c.oid, a.privilege)), ', ') || ')'
                 FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
                   AND {_APPEND_ONLY} AND has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE, TRIGGER')
                 ORDER BY c.relname),
           ARRAY(SELECT a.privilege || ' on ' || w.relname FROM ({{wanted}}) AS w
                 CROSS JOIN LATERAL unnest(w.privileges) AS a (privilege)
                 WHERE NOT has_table_privilege(w.oid, a.privilege) ORDER BY w.relname, a.privilege LIMIT 5)
    FROM pg_roles r WHERE r.rolname = current_user
"""


def inspect(conn: psycopg.Connection[Any]) -> RoleReport:
    """Return what the connected role can do, compared with what the processes need."""
    row = conn.execute(sql.SQL(_INSPECT_SQL).format(wanted=sql.SQL(_WANTED_PRIVILEGES))).fetchone()
    assert row is not None
    name, is_superuser, bypasses, creates_roles, creates_databases, owns, creates, temporary, append_only, missing = row
    excesses = (
        (is_superuser, "it is a superuser"),
        (bypasses, "it bypasses row security"),
        (creates_roles, "it may create roles"),
        (creates_databases, "it may create databases"),
        (creates, "it may create tables or schemas"),
        (temporary, "it may create temporary tables"),
        (append_only, f"it may change append-only tables: {', '.join(append_only)}"),
    )
    return RoleReport(
        str(name), bool(is_superuser), bool(owns), tuple(text for has_it, text in excesses if has_it), tuple(missing)
    )
