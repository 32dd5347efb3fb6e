"""`llm-bus backup` and `restore`, with the pg_dump and pg_restore of PostgreSQL."""

import stat
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from bus.coordination import digest, posts, sequences
from bus.db import Database, migrate, schema_version
from bus.operations import integrity_checks
from cli.exit_codes import ExitCode
from tests.cli import bus_process
from tests.cli.test_commands import Cli
from tests.concurrency import run_jobs_concurrently
from tests.factories import Agent, make_agent, make_project

_CLAIMS_BEFORE = 5


@pytest.fixture
def agent(database_url: str) -> Agent:
    with closing(Database(database_url, pool_size=1)) as db, db.transaction() as conn:
        agent = make_agent(conn, make_project(conn))
        for _ in range(_CLAIMS_BEFORE):
            sequences.claim(conn, agent.ctx, "adr", note="a decision")
        return agent


def test_a_backup_taken_while_agents_write_is_restored_without_a_gap(
    agent: Agent, database_url: str, empty_database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "bus.dump"

    def write() -> None:
        with closing(Database(database_url, pool_size=1)) as db:
            for number in range(60):
                with db.transaction() as conn:
                    sequences.claim(conn, agent.ctx, "adr", note="a decision")
                    posts.create(conn, agent.ctx, f"post {number}", to_lane="review")

    def back_up() -> None:
        result = Cli(database_url).json("backup", str(file))
        assert result == {"file": str(file), "bytes": file.stat().st_size}

    assert run_jobs_concurrently(write, write, back_up) == [None] * 3
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    restored = Cli(empty_database_url).json("restore", str(file))
    assert restored["discrepancies"] == []
    with closing(Database(empty_database_url, pool_size=1)) as db, db.transaction() as conn:
        (events, newest, current) = conn.fetch_one(
            "SELECT count(*), max(e.seq), (SELECT current FROM sequence WHERE name = 'adr') FROM event e"
        )
        assert restored["events"] == events == newest
        # Calls with the token of before work, and the sequence goes on where the snapshot ended.
        assert sequences.claim(conn, agent.ctx, "adr", note="the next").number == current + 1
        assert digest.read_digest(conn, agent.ctx, since=0).events[0].id == 1
    with closing(Database(empty_database_url, pool_size=1)) as db:
        assert integrity_checks.check_all(db) == []


def test_a_backup_of_an_older_schema_is_migrated(
    agent: Agent, database_url: str, empty_database_url: str, tmp_path: Path
) -> None:
    migrate.downgrade(database_url, "-1")
    Cli(database_url).json("backup", str(tmp_path / "old.dump"))
    assert Cli(empty_database_url).json("restore", str(tmp_path / "old.dump"))["events"] == _CLAIMS_BEFORE
    with psycopg.connect(empty_database_url) as conn:
        assert schema_version.find_schema_version(conn) == schema_version.EXPECTED_SCHEMA_VERSION


def test_a_restored_difference_is_reported(
    agent: Agent, database_url: str, empty_database_url: str, tmp_path: Path
) -> None:
    with psycopg.connect(database_url) as conn:
        conn.execute("UPDATE sequence SET current = current + 1")
    Cli(database_url).json("backup", str(tmp_path / "bus.dump"))
    result = Cli(empty_database_url).run("restore", str(tmp_path / "bus.dump"))
    assert result.exit_code == ExitCode.FAILED
    assert f"adr is at {_CLAIMS_BEFORE + 1}, its ledger at {_CLAIMS_BEFORE}" in result.output


def test_restore_refuses_and_changes_nothing(
    agent: Agent, database_url: str, empty_database_url: str, tmp_path: Path
) -> None:
    backup, other_dump, text = tmp_path / "bus.dump", tmp_path / "other.dump", tmp_path / "text"
    Cli(database_url).json("backup", str(backup))
    text.write_text("not a dump")
    occupied = Cli(database_url).run("restore", str(backup))
    assert occupied.exit_code == ExitCode.FAILED
    assert "The database is not empty" in occupied.stderr
    empty = Cli(empty_database_url)
    assert empty.run("restore", str(tmp_path / "missing")).exit_code == ExitCode.NOT_FOUND
    assert "is not a backup" in empty.run("restore", str(text)).stderr
    empty.json("backup", str(other_dump))
    assert "holds no bus" in empty.run("restore", str(other_dump)).stderr
    cut = tmp_path / "cut.dump"
    cut.write_bytes(backup.read_bytes()[:-2000])
    assert empty.run("restore", str(cut)).exit_code == ExitCode.FAILED
    with psycopg.connect(database_url) as conn:
        conn.execute("UPDATE alembic_version SET version_num = '9999'")
    newer = tmp_path / "newer.dump"
    Cli(database_url).json("backup", str(newer))
    assert "newer llm-bus" in empty.run("restore", str(newer)).stderr
    with psycopg.connect(empty_database_url) as conn:
        assert conn.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace").fetchone() == (
            0,
        )


def test_backup_replaces_a_file_only_on_request(agent: Agent, database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "bus.dump"
    file.write_text("keep")
    refused = Cli(database_url).run("backup", str(file))
    assert refused.exit_code == ExitCode.FAILED
    assert "--overwrite" in refused.stderr
    assert file.read_text() == "keep"
    Cli(database_url).json("backup", str(file), "--overwrite")
    assert file.read_bytes().startswith(b"PGDMP")
    assert Cli(database_url).run("backup", str(tmp_path / "none" / "b")).exit_code == ExitCode.NOT_FOUND
    assert list(tmp_path.iterdir()) == [file]


def test_a_failed_backup_leaves_the_last_one_and_shows_no_password(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, file, arguments = tmp_path / "bin", tmp_path / "bus.dump", tmp_path / "arguments"
    programs.mkdir()
    file.write_text("last week's")
    pg_dump = programs / "pg_dump"
    pg_dump.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "pg_dump (PostgreSQL) 99.1" && exit\n'
        f'echo "$@" "[$PGPASSWORD]" > {arguments}\necho "pg_dump: error: no space left" >&2; exit 1\n'
    )
    pg_dump.chmod(0o755)
    monkeypatch.setenv("LLM_BUS_PG_BIN", str(programs))
    failed = Cli(database_url).run("backup", str(file), "--overwrite")
    assert failed.exit_code == ExitCode.FAILED
    assert failed.stderr == "llm-bus: pg_dump failed: error: no space left\n"
    assert file.read_text() == "last week's"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    words, _, password = arguments.read_text().strip().rpartition(" ")
    assert len(password) > len("[]")
    assert password.strip("[]") not in words


def test_a_program_that_is_too_old_is_not_used(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pg_dump").write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.1'\n")
    (tmp_path / "pg_dump").chmod(0o755)
    monkeypatch.setenv("LLM_BUS_PG_BIN", str(tmp_path))
    result = Cli(database_url).run("backup", str(tmp_path / "bus.dump"))
    assert result.exit_code == ExitCode.FAILED
    assert "or newer was not found" in result.stderr


@pytest.mark.exhaustive
def test_a_data_folder_is_restored_and_served(agent: Agent, database_url: str, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "bus.dump"
    Cli(database_url).json("backup", str(file))
    restored = bus_process.run_command("restore", str(file), "--data", str(data))
    assert restored.returncode == 0, restored.stderr
    assert f"{_CLAIMS_BEFORE} events" in restored.stdout
    again = bus_process.run_command("restore", str(file), "--data", str(data))
    assert "The database is not empty" in again.stderr
    with bus_process.running_bus(data) as bus:
        assert bus.startup_info["agents"] == []
        claim = bus_process.run_command("agent", "list", agent.project, LLM_BUS_DATA=str(data))
        assert claim.returncode == 0, claim.stderr
        running = bus_process.run_command("restore", str(file), "--data", str(data))
        assert running.returncode == ExitCode.RUNNING
