"""`llm-bus settings` shows what is in force with its origin, and `llm-bus job run --due` runs what is due."""

import pytest

from bus import __version__
from bus.db import Database
from cli.exit_codes import ExitCode
from tests.cli.test_commands import Cli
from workers.jobs import all_jobs

_URL = "postgresql://bus:secret-word@localhost/bus"


@pytest.fixture
def cli() -> Cli:
    return Cli(_URL)


def test_settings_are_shown_with_their_origin_and_without_secrets(cli: Cli) -> None:
    output = cli.run("settings", DATABASE_URL=_URL, PORT="8080", METRICS_TOKEN="t" * 16, LLM_BUS_TOKEN="lbus_x").output
    rows = {line.split()[0]: line.split()[1:] for line in output.splitlines()}
    assert rows["PORT"] == ["8080", "environment"]
    assert rows["DATABASE_URL"] == ["postgresql://bus:•••@localhost/bus", "environment"]
    assert rows["METRICS_TOKEN"] == rows["LLM_BUS_TOKEN"] == ["•••", "environment"]
    assert rows["SESSION_HOURS"] == ["720", "default"]
    assert "word" not in output
    assert "lbus_x" not in output


def test_only_changed_settings_are_shown_on_request(cli: Cli) -> None:
    settings = cli.json("settings", "--changed", DATABASE_URL=_URL, SIGN_UP="closed")["settings"]
    given = {setting["name"] for setting in settings}
    assert {"DATABASE_URL", "SIGN_UP"} <= given
    assert not any(setting["origin"] == "default" for setting in settings)


def test_every_wrong_setting_is_one_line_and_exit_code_1(cli: Cli) -> None:
    refused = cli.run("settings", DATABASE_URL=_URL, PORT="many", PUBLIC_ULR="https://x", JOB_EVERY="nonsense=5",
                      REDIS_URL="redis://localhost")  # fmt: skip
    assert refused.exit_code == ExitCode.FAILED
    lines = refused.stderr.splitlines()
    assert lines[0] == "llm-bus: 3 settings are wrong:"
    assert [line.split()[1] for line in lines[1:]] == ["PORT", "JOB_EVERY", "PUBLIC_ULR"]


def test_the_version_is_shown(cli: Cli) -> None:
    assert cli.run("--version").output == f"llm-bus, version {__version__}\n"


def test_due_jobs_are_run_once_in_their_interval(database_url: str) -> None:
    cli = Cli(database_url)
    first = cli.json("job", "run", "--due")["runs"]
    assert set(first) == set(all_jobs())
    assert {run["outcome"] for run in first.values()} == {"ok"}
    assert cli.run("job", "run", "--due", JOB_EVERY=",".join(f"{name}=3600" for name in all_jobs())).output == (
        "No job is due.\n"
    )
    database = Database(database_url, pool_size=1)
    with database.transaction() as conn:
        conn.execute("UPDATE job_run SET started_at = started_at - interval '11 seconds' WHERE name = 'expire_leases'")
    database.close()
    due = cli.json("job", "run", "--due", JOB_EVERY=",".join(f"{name}=10" for name in all_jobs()))["runs"]
    assert "expire_leases" in due


def test_a_run_needs_a_name_or_due_and_not_both(cli: Cli) -> None:
    for words in ((), ("prune", "--due")):
        refused = cli.run("job", "run", *words)
        assert refused.exit_code == ExitCode.USAGE
        assert "--due" in refused.stderr
