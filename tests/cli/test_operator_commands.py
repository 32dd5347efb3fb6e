"""Jobs, credits and webhooks from the command line."""

import pytest

from bus.billing import status
from bus.coordination import leases
from bus.db import Database
from bus.operations import jobs
from bus.tenancy import owners
from cli.exit_codes import ExitCode
from tests.cli.test_commands import Cli
from tests.factories import make_agent, make_project


@pytest.fixture
def cli(database_url: str) -> Cli:
    llm_bus = Cli(database_url)
    llm_bus.json("owner", "add", "ann@example.org", "--handle", "ann")
    llm_bus.json("project", "add", "site")
    return llm_bus


def test_a_manual_run_of_a_job_is_recorded(cli: Cli, database_url: str) -> None:
    db = Database(database_url, pool_size=1)
    with db.transaction() as conn:
        ada = make_agent(conn, make_project(conn))
        leases.acquire(conn, ada.ctx, "a.py")
        conn.execute("UPDATE lease SET expires_at = clock_timestamp()")
    db.close()
    result = cli.json("job", "run", "expire_leases")
    assert (result["outcome"], result["counts"]) == ("ok", {"ended": 1})
    assert cli.run("job", "run", "expire_leases").output.startswith("expire_leases: ok in ")
    listed = {job["name"]: job for job in cli.json("job", "list")["jobs"]}
    assert listed["expire_leases"]["last"]["outcome"] == "ok"
    assert listed["prune"]["last"] is None
    assert [run["counts"] for run in cli.json("job", "history", "expire_leases")["runs"]] == [{}, {"ended": 1}]
    assert "ended 1" in cli.run("job", "history").output


def test_an_unknown_job_is_refused_with_a_hint(cli: Cli) -> None:
    refused = cli.run("job", "run", "nonsense")
    assert refused.exit_code == ExitCode.USAGE
    assert "llm-bus job list" in refused.stderr


def test_an_alarm_exits_with_code_1(cli: Cli, database_url: str) -> None:
    cli.json("credit", "add", "ann", "5", "--ref", "1")
    db = Database(database_url, pool_size=1)
    with db.transaction() as conn:
        conn.execute("UPDATE credit_account SET balance = 6")
    db.close()
    result = cli.run("job", "run", "reconcile")
    assert result.exit_code == ExitCode.FAILED
    assert "balance, ann: the balance is 6" in result.output
    doctor = cli.run("doctor")
    assert doctor.exit_code == ExitCode.FAILED
    assert "job reconcile" in doctor.output


def test_doctor_reports_that_no_jobs_run(cli: Cli, database_url: str) -> None:
    assert "none yet" in cli.run("doctor").output
    db = Database(database_url, pool_size=1)
    with db.transaction() as conn:
        conn.execute("UPDATE owner SET created_at = clock_timestamp() - interval '1 hour'")
    assert "never ran" in cli.run("doctor").output
    cli.json("job", "run", "heartbeat")
    assert "1 job ran, the last 0 s ago" in cli.run("doctor").output
    with db.transaction() as conn:
        conn.execute("UPDATE job_run SET started_at = clock_timestamp() - interval '20 minutes'")
        assert jobs.list_latest_runs(conn)
    db.close()
    assert "last ran 20 minutes ago" in cli.run("doctor").output


def test_credits_are_added_once_for_each_reference(cli: Cli) -> None:
    assert "no account yet" in cli.run("credit", "show", "ann").output
    for _ in range(2):
        added = cli.json("credit", "add", "ann", "500", "--ref", "invoice 1", "--reason", "paid")
        assert (added["balance"], added["entry"]["kind"]) == (500, "top_up")
    assert cli.run("credit", "add", "ann", "400", "--ref", "invoice 1").exit_code == ExitCode.FAILED
    assert cli.json("credit", "add", "ann@example.org", "50", "--ref", "gift", "--grant")["entry"]["kind"] == "grant"
    shown = cli.json("credit", "show", "ann")
    assert shown["account"]["balance"] == 550
    assert [entry["reference"] for entry in shown["entries"]] == ["gift", "invoice 1"]
    assert "ann: 550 credits, plan free" in cli.run("credit", "show", "ann").output
    assert cli.json("credit", "plan", "ann", "comped")["plan"] == "comped"
    assert cli.run("credit", "add", "unknown", "5", "--ref", "x").exit_code == ExitCode.NOT_FOUND
    assert cli.run("credit", "add", "ann", "5").exit_code == ExitCode.USAGE


def test_prices_are_listed_and_set(cli: Cli) -> None:
    prices = {price["event_type"]: price["credits"] for price in cli.json("credit", "prices")["prices"]}
    assert (prices["claim"], prices["register"], prices["task_ship"]) == (1, 0, 1)
    assert cli.json("credit", "price", "claim", "3")["credits"] == 3
    assert cli.run("credit", "price", "claim", "3", "--from", "2020-01-01").exit_code == ExitCode.FAILED
    assert cli.run("credit", "price", "nonsense", "3").exit_code == ExitCode.FAILED
    later = cli.run("credit", "price", "claim", "9", "--from", "2999-01-01")
    assert "claim costs 9 from 2999-01-01 00:00 UTC." in later.output


def test_metering_records_its_billing_terms(cli: Cli, database_url: str) -> None:
    cli.json("job", "run", "meter_credits")
    db = Database(database_url, pool_size=1)
    with db.connection() as conn:
        assert status.get_terms(conn) == status.BillingTerms(metering_enabled=False, grace_hours=72, trial_credits=1000)
    db.close()


def test_a_webhook_is_added_tested_listed_and_removed(cli: Cli) -> None:
    webhook = cli.json("webhook", "add", "https://example.org/x", "--project", "site")
    assert webhook["secret"].startswith("whsec_")
    assert cli.json("webhook", "test", "--project", "site", "--email", "a@example.org") == {"notices": 2}
    listed = cli.json("webhook", "list", "--project", "site")
    assert [listed_webhook["url"] for listed_webhook in listed["webhooks"]] == ["https://example.org/x"]
    assert "secret" not in listed["webhooks"][0]
    assert {notice["state"] for notice in listed["notices"]} == {"waiting"}
    assert cli.json("webhook", "list", "--owner", "ann")["webhooks"] == []
    cli.json("webhook", "remove", str(webhook["id"]), "--project", "site")
    assert cli.run("webhook", "remove", str(webhook["id"]), "--project", "site").exit_code == ExitCode.NOT_FOUND
    assert cli.run("webhook", "list").exit_code == ExitCode.USAGE
    assert cli.run("webhook", "add", "nonsense", "--owner", "ann").exit_code == ExitCode.FAILED
    assert cli.run("webhook", "test", "--project", "site", "--email", "nonsense").exit_code == ExitCode.FAILED
    assert len(cli.json("webhook", "list", "--project", "site")["notices"]) == 2


def test_the_handle_of_an_owner_is_changed(cli: Cli) -> None:
    assert cli.run("owner", "rename", "ann@example.org", "anna").output == "ann is now anna.\n"
    assert cli.json("owner", "rename", "ann", "anna")["handle"] == "anna"
    assert "already" in cli.run("owner", "rename", "anna", "anna").output
    assert cli.json("project", "list", "--owner", "ann")["projects"][0]["owner"] == "anna"
    assert cli.json("agent", "add", "ann/site", "worker")
    assert cli.run("owner", "rename", "anna", "admin").exit_code == ExitCode.FAILED


def test_a_suspended_owner_is_refused_with_what_to_do_and_lifted(cli: Cli, database_url: str) -> None:
    db = Database(database_url, pool_size=1)
    with db.transaction() as conn:
        owners.suspend(conn, owners.get(conn, "ann").id, reason="abuse", actor="boss")
    db.close()
    refused = cli.run("agent", "add", "site", "worker")
    assert refused.exit_code == ExitCode.FAILED
    assert "llm-bus owner lift" in refused.stderr
    assert cli.json("owner", "lift", "ann", "--reason", "a mistake")["suspended_at"] is None
    assert "was not suspended" in cli.run("owner", "lift", "ann").output
    assert cli.run("agent", "add", "site", "worker").exit_code == 0
