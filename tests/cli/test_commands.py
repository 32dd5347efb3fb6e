"""Short commands against a database that DATABASE_URL names."""

import json
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bus import __version__
from bus.auth import login_links
from bus.db import Database
from bus.tenancy import owners
from cli.exit_codes import ExitCode
from cli.main import main
from tests import servers
from tests.assertions import assert_refused


class Cli:
    """`llm-bus` in this process."""

    def __init__(self, database_url: str) -> None:
        self.env: dict[str, str | None] = {
            "DATABASE_URL": servers.application_url(database_url),
            "MIGRATION_DATABASE_URL": database_url,
            "REDIS_URL": None,
            "LLM_BUS_TOKEN": None,
        }

    def run(self, *words: str, **env: str) -> Result:
        return CliRunner().invoke(main, words, env={**self.env, **env})

    def json(self, *words: str, **env: str) -> Any:
        result = self.run(*words, "--json", **env)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def cli(database_url: str) -> Cli:
    llm_bus = Cli(database_url)
    llm_bus.json("owner", "add", "ann@example.org", "--handle", "ann")
    llm_bus.json("project", "add", "site")
    return llm_bus


def test_an_owner_is_added_and_listed(cli: Cli) -> None:
    zoe = cli.json("owner", "add", "Zoe.Q@example.org", "--operator")
    assert (zoe["handle"], zoe["operator"]) == ("zoe-q", True)
    assert [owner["handle"] for owner in cli.json("owner", "list")["owners"]] == ["ann", "zoe-q"]
    assert cli.json("owner", "list", "--after", "1", "--limit", "1")["owners"] == [zoe]
    assert "zoe-q" in cli.run("owner", "list").output


def test_a_refusal_is_one_line_on_stderr_and_exit_code_1(cli: Cli) -> None:
    refused = cli.run("owner", "add", "ann@example.org")
    assert refused.exit_code == ExitCode.FAILED
    assert refused.stdout == ""
    assert refused.stderr.startswith("llm-bus: ")
    assert refused.stderr.count("\n") == 1


def test_a_short_project_name_works_while_only_one_owner_uses_it(cli: Cli) -> None:
    assert cli.json("agent", "add", "site", "builder")["actor"] == "ann/builder"
    cli.json("owner", "add", "zoe@example.org")
    assert cli.run("project", "add", "site").exit_code == ExitCode.FAILED
    cli.json("project", "add", "site", "--owner", "zoe")
    ambiguous = cli.run("agent", "add", "site", "tester")
    assert ambiguous.exit_code == ExitCode.FAILED
    assert "ann/site, zoe/site" in ambiguous.stderr
    assert cli.json("agent", "add", "zoe/site", "tester")["actor"] == "zoe/tester"
    projects = cli.json("project", "list", "--owner", "zoe")["projects"]
    assert [project["project"] for project in projects] == ["zoe/site"]


def test_an_unknown_name_exits_with_code_4(cli: Cli) -> None:
    for words in (
        ("agent", "add", "nowhere", "x"),
        ("agent", "rotate", "site", "unknown"),
        ("project", "add", "x", "--owner", "unknown"),
    ):
        assert cli.run(*words).exit_code == ExitCode.NOT_FOUND, words


def test_an_agent_is_listed_as_it_was_added(cli: Cli) -> None:
    added = cli.json("agent", "add", "site", "eve", "--kind", "human", "--lane", "web", "--admin")
    assert (added["kind"], added["lane"], added["is_admin"]) == ("human", "web", True)
    (listed,) = cli.json("agent", "list", "site")["agents"]
    assert listed.items() <= ({"id": listed["id"]} | added).items()


def test_token_check_agrees_with_the_gateway(cli: Cli) -> None:
    first = cli.json("agent", "add", "site", "builder")["token"]
    status = cli.json("token", "check", LLM_BUS_TOKEN=first)
    assert (status["ok"], status["actor"], status["project"]) == (True, "ann/builder", "site")
    second = cli.json("agent", "rotate", "site", "builder")["token"]
    rotated = cli.run("token", "check", LLM_BUS_TOKEN=first)
    assert (rotated.exit_code, "revoked" in rotated.stdout) == (1, True)
    assert cli.run("token", "check", LLM_BUS_TOKEN=second).exit_code == 0
    assert cli.json("agent", "revoke", "site", "builder")["revoked"] == 1
    assert cli.json("agent", "revoke", "site", "builder")["revoked"] == 0
    assert cli.run("token", "check", LLM_BUS_TOKEN=second).exit_code == 1
    assert cli.run("token", "check", LLM_BUS_TOKEN=second[:-1] + "x").exit_code == 1


def test_a_token_of_a_suspended_owner_fails_the_check(cli: Cli, database_url: str) -> None:
    token = cli.json("agent", "add", "site", "builder")["token"]
    database = Database(database_url, pool_size=1)
    with database.transaction() as conn:
        owners.suspend(conn, owners.get(conn, "ann").id, reason="test", actor="test")
    database.close()
    checked = cli.run("token", "check", LLM_BUS_TOKEN=token)
    assert (checked.exit_code, "suspended" in checked.stdout) == (1, True)


def test_a_token_is_read_from_standard_input_or_a_file(cli: Cli, tmp_path: Any) -> None:
    token = cli.json("agent", "add", "site", "builder")["token"]
    (tmp_path / "token").write_text(f"{token}\n")
    assert cli.run("token", "check", "--token-file", str(tmp_path / "token")).exit_code == 0
    piped = CliRunner().invoke(main, ["token", "check"], env=cli.env, input=f"{token}\n")
    assert piped.exit_code == 0
    assert token not in piped.output
    assert cli.run("token", "check", token).exit_code == ExitCode.USAGE


def test_an_unreachable_database_exits_with_code_5(cli: Cli) -> None:
    unreachable = "postgresql://user@127.0.0.1:1/none"
    for words in (("owner", "list"), ("migrate",)):
        result = cli.run(*words, DATABASE_URL=unreachable, MIGRATION_DATABASE_URL=unreachable)
        assert result.exit_code == ExitCode.UNAVAILABLE, result.output
        assert result.stderr.count("\n") == 1


def test_doctor_reports_each_problem_with_a_next_step(cli: Cli, empty_database_url: str, tmp_path: Any) -> None:
    result = cli.run(
        "doctor",
        "--json",
        DATABASE_URL=empty_database_url,
        MIGRATION_DATABASE_URL="",
        REDIS_URL="redis://127.0.0.1:1/0",
        MCP_URL="http://127.0.0.1:1/mcp",
    )
    assert result.exit_code == ExitCode.FAILED
    checks = {check["check"]: check for check in json.loads(result.stdout)["checks"]}
    assert {name: check["ok"] for name, check in checks.items()} == {
        "database": True,
        "migrations": False,
        "database role": True,
        "clock": True,
        "redis": False,
        "gateway": False,
    }
    assert "llm-bus migrate" in checks["migrations"]["to_do"]
    assert all(check["to_do"] for check in checks.values() if not check["ok"])


def test_migrate_creates_the_newest_schema_in_an_empty_database(cli: Cli, empty_database_url: str) -> None:
    for _ in range(2):
        assert cli.json("migrate", DATABASE_URL=empty_database_url, MIGRATION_DATABASE_URL="")["revision"]
    assert cli.run("owner", "list", DATABASE_URL=empty_database_url).output == "None.\n"


def test_help_lists_every_command() -> None:
    output = CliRunner().invoke(main, ["--help"]).output
    for noun in ("agent", "doctor", "migrate", "owner", "project", "token", "up"):
        assert f"\n  {noun} " in output


def test_the_version_is_that_of_the_engine() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"llm-bus, version {__version__}\n"


def test_a_login_link_signs_its_owner_in_once(cli: Cli) -> None:
    link = cli.json("login-link", "ANN@example.org", "--minutes", "5", PUBLIC_URL="https://bus.example.org/")
    assert list(link) == ["url"]
    base, separator, token = link["url"].partition("/sign-in/link/")
    assert (base, separator, len(token)) == ("https://bus.example.org", "/sign-in/link/", 43)
    with closing(Database(str(cli.env["DATABASE_URL"]), pool_size=1)) as database, database.transaction() as conn:
        ann = owners.get(conn, "ann")
        assert login_links.consume_login_link(conn, token) == ann.id
        with assert_refused(conn, "not_found"):
            login_links.consume_login_link(conn, token)
        (lifetime,) = conn.fetch_one("SELECT expires_at - created_at FROM login_link")
        audit_rows = conn.fetch_all("SELECT actor, action, subject FROM audit WHERE action LIKE 'login_link%%'")
    assert lifetime <= timedelta(minutes=5, seconds=1)
    assert audit_rows == [("cli", "login_link.create", "ann")]
    assert "in once, within 15 minutes" in cli.run("login-link", "ann").output


def test_a_login_link_for_an_unknown_owner_is_refused(cli: Cli) -> None:
    refused = cli.run("login-link", "unknown@example.org")
    assert refused.exit_code == ExitCode.NOT_FOUND
    assert "unknown@example.org" in refused.stderr
