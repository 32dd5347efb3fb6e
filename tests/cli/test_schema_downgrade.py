"""Going back to the schema of an older version."""

import psycopg
import pytest

from bus.db import migrate, schema_version
from cli.exit_codes import ExitCode
from cli.offline_postgres import running_postgres
from tests.cli.bus_process import reserve_ports, run_command, temporary_data_folder
from tests.cli.test_commands import Cli


def _version(url: str) -> str | None:
    with psycopg.connect(url) as conn:
        return schema_version.find_schema_version(conn)


def test_a_schema_goes_back_and_forth(database_url: str) -> None:
    cli = Cli(database_url)
    cli.json("owner", "add", "ann@example.org", "--handle", "ann")
    assert "The schema is at 0016." in cli.run("migrate", "--to", "0016").output
    assert _version(database_url) == "0016"
    cli.json("migrate")
    assert _version(database_url) == migrate.head_revision()
    assert [owner["handle"] for owner in cli.json("owner", "list")["owners"]] == ["ann"]


@pytest.mark.parametrize("revision", ["base", "9999", "0000", "1", schema_version.EXPECTED_SCHEMA_VERSION])
def test_other_revisions_are_refused(database_url: str, revision: str) -> None:
    refused = Cli(database_url).run("migrate", "--to", revision)
    assert refused.exit_code == ExitCode.USAGE
    assert "give an older revision" in refused.stderr


def test_it_is_refused_while_processes_are_connected(database_url: str) -> None:
    with psycopg.connect(database_url, application_name="llm-bus worker"):
        refused = Cli(database_url).run("migrate", "--to", "0016")
    assert "1 connection(s) of the bus are open" in refused.stderr
    assert _version(database_url) == migrate.head_revision()


def test_the_schema_of_a_data_folder_goes_back_while_no_bus_runs_there() -> None:
    with temporary_data_folder() as data:
        data.mkdir()
        reserve_ports(data)
        with running_postgres(data) as urls:
            migrate.migrate(urls.owner)
        done = run_command("migrate", "--to", "0016", "--data", str(data))
        assert (done.returncode, done.stdout) == (
            0, "The schema is at 0016. Install the version that belongs to it and let it migrate.\n"
        ), done.stderr  # fmt: skip
        with running_postgres(data) as urls:
            assert _version(urls.owner) == "0016"


def test_a_migration_refuses_the_schema_of_a_newer_version_in_one_line(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        conn.execute("UPDATE alembic_version SET version_num = '9999'")
    refused = Cli(database_url).run("migrate")
    assert refused.exit_code == ExitCode.FAILED
    assert "the schema 9999 of a newer version" in refused.stderr
    assert f"llm-bus migrate --to {schema_version.EXPECTED_SCHEMA_VERSION}" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize(("version", "expected"), [(None, False), ("0001", False), ("9999", True)])
def test_a_process_is_ready_on_its_schema_and_on_a_newer_one(version: str | None, expected: bool) -> None:
    assert schema_version.is_sufficient(version) is expected
    assert schema_version.is_sufficient(schema_version.EXPECTED_SCHEMA_VERSION)
