"""The role of the processes on the command line: `migrate`, `doctor`, `backup` and `restore`."""

import json
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from bus.coordination import sequences
from bus.db import Database, application_role, migrate
from cli.exit_codes import ExitCode
from tests import servers
from tests.cli.test_commands import Cli
from tests.factories import make_agent


def _check_role(cli: Cli, **env: str) -> dict[str, object]:
    checks = json.loads(cli.run("doctor", "--json", **env).stdout)["checks"]
    (check,) = [check for check in checks if check["check"] == "database role"]
    assert isinstance(check, dict)
    return check


@pytest.fixture
def bare_role(database_url: str) -> Iterator[str]:
    """The URL of a role without privileges."""
    name = f"role_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(servers.maintenance_url(), autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'test'").format(sql.Identifier(name)))
    parts = urlsplit(database_url)
    yield urlunsplit(parts._replace(netloc=f"{name}:test@{parts.hostname}:{parts.port}"))
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


def test_doctor_accepts_the_role_that_migrate_creates(empty_database_url: str) -> None:
    cli = Cli(empty_database_url)
    assert cli.json("migrate")["revision"]
    check = _check_role(cli)
    assert (check["ok"], check["to_do"]) == (True, "")
    assert "cannot change the schema" in str(check["found"])


def test_doctor_says_that_one_role_does_everything_without_failing(database_url: str) -> None:
    """Platforms that allow no second role work as they are."""
    cli = Cli(database_url)
    cli.env |= {"DATABASE_URL": database_url, "MIGRATION_DATABASE_URL": None}
    assert cli.json("migrate")["revision"]
    check = _check_role(cli)
    assert check["ok"]
    assert "owns the schema" in str(check["found"])
    assert "superuser" in str(check["found"])
    assert "MIGRATION_DATABASE_URL" in str(check["to_do"])


def test_doctor_reports_what_the_role_lacks_and_what_it_has_too_much(database_url: str, bare_role: str) -> None:
    cli = Cli(database_url)
    check = _check_role(cli, DATABASE_URL=bare_role)
    assert not check["ok"]
    assert "lacks DELETE on ack_cursor" in str(check["found"])
    assert "llm-bus migrate" in str(check["to_do"])
    assert cli.run("migrate", DATABASE_URL=bare_role).exit_code == ExitCode.OK
    assert _check_role(cli, DATABASE_URL=bare_role)["ok"]
    with psycopg.connect(database_url) as conn:
        conn.execute(sql.SQL("GRANT UPDATE ON event TO {}").format(sql.Identifier(str(urlsplit(bare_role).username))))
    check = _check_role(cli, DATABASE_URL=bare_role)
    assert not check["ok"]
    assert "append-only tables: event (UPDATE)" in str(check["found"])


def test_migrate_as_the_role_of_the_processes_names_the_missing_variable(database_url: str) -> None:
    cli = Cli(database_url)
    cli.env["MIGRATION_DATABASE_URL"] = None
    # With nothing to migrate, as in most releases, there is nothing to refuse.
    assert cli.run("migrate").exit_code == ExitCode.OK
    migrate.downgrade(database_url, "-1")
    result = cli.run("migrate")
    assert result.exit_code == ExitCode.FAILED
    assert "Set MIGRATION_DATABASE_URL" in result.stderr
    assert result.stderr.count("\n") == 1
    wrong = cli.run("migrate", MIGRATION_DATABASE_URL="mysql://owner:hunter2@db/bus")
    assert "MIGRATION_DATABASE_URL must start with postgresql://" in wrong.stderr
    assert "hunter2" not in wrong.output


def test_a_restored_database_serves_the_role(database_url: str, empty_database_url: str, tmp_path: Path) -> None:
    with closing(Database(database_url, pool_size=1)) as db, db.transaction() as conn:
        agent = make_agent(conn)
        sequences.claim(conn, agent.ctx, "adr")
    dump = tmp_path / "bus.dump"
    Cli(database_url).json("backup", str(dump))
    assert Cli(empty_database_url).json("restore", str(dump))["discrepancies"] == []
    application = servers.application_url(empty_database_url)
    with closing(Database(application, pool_size=1)) as db, db.transaction() as conn:
        assert sequences.claim(conn, agent.ctx, "adr").number == 2
        report = application_role.inspect(conn.raw)
    assert (report.owns_schema, report.excesses, report.missing) == (False, (), ())
