"""The short commands, against a database that DATABASE_URL names."""

import json
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bus.auth import login_links
from bus.db import Database
from bus.tenancy import owners
from cli.exit_codes import ExitCode
from cli.main import main
from tests.assertions import assert_refused


class Cli:
    """`llm-bus` in this process."""

    def __init__(self, database_url: str) -> None:
        self.env: dict[str, str | None] = {
            "DATABASE_URL": database_url,
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
    made = Cli(database_url)
    made.json("owner", "add", "ann@example.org", "--handle", "ann")
    made.json("project", "add", "site")
    return made


def test_an_owner_is_added_and_listed(cli: Cli) -> None:
    made = cli.json("owner", "add", "Zoe.Q@example.org", "--operator")
    assert (made["handle"], made["operator"]) == ("zoe-q", True)
    assert [owner["handle"] for owner in cli.json("owner", "list")["owners"]] == ["ann", "zoe-q"]
    assert cli.json("owner", "list", "--after", "1", "--limit", "1")["owners"] == [made]
    assert "zoe-q" in cli.run("owner", "list").output


def test_a_refusal_is_one_line_on_stderr_and_exit_code_1(cli: Cli) -> None:
    again = cli.run("owner", "add", "ann@example.org")
    assert again.exit_code == ExitCode.FAILED
    assert again.stdout == ""
    assert again.stderr.startswith("llm-bus: ")
    assert again.stderr.count("\n") == 1


def test_a_bare_project_name_will_do_while_only_one_owner_has_it(cli: Cli) -> None:
    assert cli.json("agent", "add", "site", "builder")["actor"] == "ann/builder"
    cli.json("owner", "add", "zoe@example.org")
    assert cli.run("project", "add", "site").exit_code == ExitCode.FAILED
    cli.json("project", "add", "site", "--owner", "zoe")
    unclear = cli.run("agent", "add", "site", "tester")
    assert unclear.exit_code == ExitCode.FAILED
    assert "ann/site, zoe/site" in unclear.stderr
    assert cli.json("agent", "add", "zoe/site", "tester")["actor"] == "zoe/tester"
    assert [one["project"] for one in cli.json("project", "list", "--owner", "zoe")["projects"]] == ["zoe/site"]


def test_what_does_not_exist_is_exit_code_4(cli: Cli) -> None:
    for words in (
        ("agent", "add", "nowhere", "x"),
        ("agent", "rotate", "site", "nobody"),
        ("project", "add", "x", "--owner", "nobody"),
    ):
        assert cli.run(*words).exit_code == ExitCode.NOT_FOUND, words


def test_an_agent_is_listed_as_it_was_added(cli: Cli) -> None:
    made = cli.json("agent", "add", "site", "eve", "--kind", "human", "--lane", "web", "--admin")
    assert (made["kind"], made["lane"], made["is_admin"]) == ("human", "web", True)
    (listed,) = cli.json("agent", "list", "site")["agents"]
    assert listed.items() <= ({"id": listed["id"]} | made).items()


def test_a_token_is_judged_as_the_gateway_judges_it(cli: Cli) -> None:
    first = cli.json("agent", "add", "site", "builder")["token"]
    good = cli.json("token", "check", LLM_BUS_TOKEN=first)
    assert (good["ok"], good["actor"], good["project"]) == (True, "ann/builder", "site")
    second = cli.json("agent", "rotate", "site", "builder")["token"]
    old = cli.run("token", "check", LLM_BUS_TOKEN=first)
    assert (old.exit_code, "revoked" in old.stdout) == (1, True)
    assert cli.run("token", "check", LLM_BUS_TOKEN=second).exit_code == 0
    assert cli.json("agent", "revoke", "site", "builder")["revoked"] == 1
    assert cli.json("agent", "revoke", "site", "builder")["revoked"] == 0
    assert cli.run("token", "check", LLM_BUS_TOKEN=second).exit_code == 1
    assert cli.run("token", "check", LLM_BUS_TOKEN=second[:-1] + "x").exit_code == 1


def test_a_token_of_a_suspended_owner_is_bad(cli: Cli, database_url: str) -> None:
    token = cli.json("agent", "add", "site", "builder")["token"]
    database = Database(database_url, pool_size=1)
    with database.transaction() as conn:
        owners.suspend(conn, owners.get(conn, "ann").id, reason="test", actor="test")
    database.close()
    checked = cli.run("token", "check", LLM_BUS_TOKEN=token)
    assert (checked.exit_code, "suspended" in checked.stdout) == (1, True)


def test_a_token_can_be_piped_in_or_read_from_a_file(cli: Cli, tmp_path: Any) -> None:
    token = cli.json("agent", "add", "site", "builder")["token"]
    (tmp_path / "token").write_text(f"{token}\n")
    assert cli.run("token", "check", "--token-file", str(tmp_path / "token")).exit_code == 0
    piped = CliRunner().invoke(main, ["token", "check"], env=cli.env, input=f"{token}\n")
    assert piped.exit_code == 0
    assert token not in piped.output
    assert cli.run("token", "check", token).exit_code == ExitCode.USAGE


def test_a_database_that_does_not_answer_is_exit_code_5(cli: Cli) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    for words in (("owner", "list"), ("migrate",)):
        result = cli.run(*words, DATABASE_URL=nowhere)
        assert result.exit_code == ExitCode.UNAVAILABLE, result.output
        assert result.stderr.count("\n") == 1


def test_doctor_says_what_is_wrong_and_what_to_do(cli: Cli, empty_database_url: str, tmp_path: Any) -> None:
    result = cli.run(
        "doctor",
        "--json",
        DATABASE_URL=empty_database_url,
        REDIS_URL="redis://127.0.0.1:1/0",
        MCP_URL="http://127.0.0.1:1/mcp",
    )
    assert result.exit_code == ExitCode.FAILED
    checks = {check["check"]: check for check in json.loads(result.stdout)["checks"]}
    assert {name: check["ok"] for name, check in checks.items()} == {
        "data folder": True,
        "database": True,
        "migrations": False,
        "clock": True,
        "redis": False,
        "gateway": False,
    }
    assert "llm-bus migrate" in checks["migrations"]["to_do"]
    assert all(check["to_do"] for check in checks.values() if not check["ok"])


def test_migrate_brings_an_empty_database_to_the_newest_schema(cli: Cli, empty_database_url: str) -> None:
    for _ in range(2):
        assert cli.json("migrate", DATABASE_URL=empty_database_url)["revision"]
    assert cli.run("owner", "list", DATABASE_URL=empty_database_url).output == "None.\n"


def test_help_names_every_command() -> None:
    said = CliRunner().invoke(main, ["--help"]).output
    for noun in ("agent", "doctor", "migrate", "owner", "project", "token", "up"):
        assert f"\n  {noun} " in said


def test_a_login_link_signs_its_owner_in_once(cli: Cli) -> None:
    made = cli.json("login-link", "ANN@example.org", "--minutes", "5", PUBLIC_URL="https://bus.example.org/")
    assert list(made) == ["url"]
    base, separator, token = made["url"].partition("/sign-in/link/")
    assert (base, separator, len(token)) == ("https://bus.example.org", "/sign-in/link/", 43)
    with closing(Database(str(cli.env["DATABASE_URL"]), pool_size=1)) as database, database.transaction() as conn:
        ann = owners.get(conn, "ann")
        assert login_links.consume_login_link(conn, token) == ann.id
        with assert_refused(conn, "not_found"):
            login_links.consume_login_link(conn, token)
        left = conn.fetch_one("SELECT expires_at - created_at FROM login_link")[0]
        acts = conn.fetch_all("SELECT actor, action, subject FROM audit WHERE action LIKE 'login_link%%'")
    assert left <= timedelta(minutes=5, seconds=1)
    assert acts == [("cli", "login_link.create", "ann")]
    assert "once, within 15 minutes" in cli.run("login-link", "ann").output


def test_a_login_link_for_nobody_is_refused(cli: Cli) -> None:
    refused_to = cli.run("login-link", "nobody@example.org")
    assert refused_to.exit_code == ExitCode.NOT_FOUND
    assert "nobody@example.org" in refused_to.stderr
