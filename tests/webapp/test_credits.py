"""The credits pages: balance, usage, entries, and the messages of every billing state."""

import csv
import io
import re
from collections.abc import Callable

import pytest

from bus.billing import credits, metering
from bus.db import Database
from bus.tenancy import owners
from tests.factories import make_owner
from tests.webapp.sample_data import SampleData, add_credit_usage
from tests.webapp.web_client import Browser, WebApp

_TAGS = re.compile(r"<[^>]+>")


def _text(page: str) -> str:
    return re.sub(r"\s+", " ", _TAGS.sub(" ", page))


@pytest.fixture
def spent(db: Database, sample: SampleData) -> SampleData:
    """The sample owner has used credits for forty days."""
    with db.transaction() as conn:
        add_credit_usage(conn, sample)
    return sample


def test_the_overview_shows_balance_forecast_and_usage(ada: Browser, spent: SampleData, db: Database) -> None:
    page = ada.get("/admin/credits/").text
    text = _text(page)
    with db.connection() as conn:
        account = credits.find_account(conn, spent.owner.id)
        assert account is not None
        month = "day > (now() AT TIME ZONE 'UTC')::date - 30"
        (used,) = conn.fetch_one(f"SELECT sum(credits) FROM credit_usage WHERE {month}")
        by_project = conn.fetch_all(f"SELECT project_id, sum(credits) FROM credit_usage WHERE {month} GROUP BY 1")
        by_day = conn.fetch_all(f"SELECT day, sum(credits) FROM credit_usage WHERE {month} GROUP BY 1")
    assert f"{account.balance:,} credits" in text
    assert re.search(r"Lasts until about \d+ [A-Z]\w+( \d{4})? at the rate of the last 7 days\.", text)
    assert f"{used:,} credits for {used:,} events" in text
    assert f": {max(amount for _, amount in by_day)} " in text
    for day, amount in by_day:
        assert f"{day:%-d %b %Y} {amount} {amount} " in text
    for _, amount in by_project:
        assert f"{amount:,} {amount:,}" in text
    assert "mercury deleted" in text
    assert "Agents keep working for another 3 days" in text
    assert "llm-bus credit add ada" in text
    assert page.count('<svg class="plot"') == 2
    assert f"{used:,}" not in _text(ada.get("/admin/credits/?days=7").text)
    assert ada.get("/admin/credits/?days=13").text.count("<tr") == page.count("<tr")


def test_entries_are_paged_by_key_and_exported_completely(ada: Browser, spent: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        credits.add_credits(conn, spent.owner.id, 5, reference="=cmd()", reason="a test", actor="cli")
    seen, path = [], "/admin/credits/entries"
    for _ in range(5):
        page = ada.get(path).text
        seen += re.findall(r'id="entry-(\d+)"', page)
        older = re.search(r'href="([^"]*before=\d+[^"]*)"', page)
        if older is None:
            break
        path = older[1].replace("&amp;", "&")
    with db.connection() as conn:
        known = [str(one.id) for one in credits.list_entries(conn, spent.owner.id, limit=1000)]
    assert seen == known
    assert len(known) > 100
    added = _text(ada.get("/admin/credits/entries?only=added").text)
    assert "Top-up" in added
    assert "Trial" in added
    assert "Usage" not in added
    export = ada.get("/admin/credits/entries.csv")
    rows = list(csv.DictReader(io.StringIO(export.text)))
    assert [row["id"] for row in rows] == known
    assert sum(int(row["amount"]) for row in rows) == int(rows[0]["balance"])
    # A spreadsheet does not evaluate the reference as a formula.
    assert rows[0]["reference"] == "'=cmd()"
    assert "attachment" in export.headers["Content-Disposition"]


def test_the_threshold_is_validated_and_set(ada: Browser, spent: SampleData, db: Database) -> None:
    ada.get("/admin/credits/")
    refused = ada.submit("/admin/credits/threshold", low_balance="-1")
    assert refused.status_code == 400
    assert "0 to 1,000,000,000,000 credits." in refused.text
    ada.get("/admin/credits/")
    assert ada.submit("/admin/credits/threshold", low_balance="777").status_code == 303
    with db.connection() as conn:
        account = credits.find_account(conn, spent.owner.id)
        assert account is not None
        assert account.low_balance == 777
        assert conn.fetch_one("SELECT actor FROM audit WHERE action = 'credit.low_balance'") == ("ada",)
    assert "The balance is below 777 credits." in _text(ada.get("/admin/credits/").text)


def test_every_billing_state_has_its_message(
    make_web: Callable[..., WebApp], site: WebApp, ada: Browser, sample: SampleData, db: Database
) -> None:
    """The states in the order in which an owner may reach them."""

    def assert_shown(*messages: str, path: str = "/admin/credits/") -> None:
        text = _text(ada.get(path).text)
        for message in messages:
            assert message in text, (message, text)

    def set_account(**columns: object) -> None:
        with db.transaction() as conn:
            for name, value in columns.items():
                conn.raw.execute(f"UPDATE credit_account SET {name} = %s".encode(), (value,))

    assert_shown("Billing is off.")
    assert "Credits" not in ada.get("/admin/").text
    with db.transaction() as conn:
        metering.set_metering_enabled(conn, True)
    assert_shown("No account yet", "Your account opens with the first billed event.", "Agents keep working for a while")
    assert ">Credits<" in ada.get("/admin/").text
    with db.transaction() as conn:
        metering.record_terms(conn, grace_hours=48, trial_credits=250)
    assert_shown("includes 250 credits", "Agents keep working for another 2 days")
    with db.transaction() as conn:
        credits.add_credits(conn, sample.owner.id, 500, reference="1", actor="cli")
    assert_shown("500 credits", "A forecast appears after the first full day of usage.", "No usage in the last 30 days")
    set_account(balance=-3, delinquent_at="now")
    assert_shown(
        "Credits ran out at",
        "Agents keep working until",
        "in 2 days",
        "Add 4 credits or more to keep agents working",
        "No credits left.",
    )
    set_account(delinquent_at="2026-01-01")
    assert_shown("agent calls are refused from now on")
    with db.transaction() as conn:
        assert credits.suspend_delinquent_owner(conn, sample.owner.id, 48)
    assert_shown(
        "Agent calls have been refused since",
        "because the credits ran out",
        "Add 4 credits or more to restore access at once",
    )
    assert_shown("This account is suspended", "See why and what to do", path="/admin/")
    with db.transaction() as conn:
        credits.set_plan(conn, sample.owner.id, "comped", actor="cli")
    assert_shown("comped", "agent calls are never refused for lack of credits")
    with db.transaction() as conn:
        owners.suspend(conn, sample.owner.id, reason="abuse", actor="operator")
    assert_shown("The operator suspended this account", "Adding credits does not lift the suspension")
    with db.transaction() as conn:
        owners.lift_suspension(conn, sample.owner.id, actor="operator")
        metering.set_metering_enabled(conn, False)
    assert_shown("Billing is off.", "The account is kept")
    assert_shown("These prices apply once it is turned on", path="/admin/credits/prices")
    # A service with a top-up address.
    with db.transaction() as conn:
        metering.set_metering_enabled(conn, True)
        credits.set_plan(conn, sample.owner.id, "free", actor="cli")
    paid = make_web(TOP_UP_URL="https://pay.example.org/?for={handle}")
    with db.connection() as conn:
        page = paid.new_browser().sign_in(conn, sample.owner).get("/admin/credits/").text
    assert 'href="https://pay.example.org/?for=ada"' in page
    assert "llm-bus credit add" not in page


def test_another_owner_sees_none_of_the_credits(site: WebApp, spent: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        eve = make_owner(conn, "eve")
    with db.connection() as conn:
        browser = site.new_browser().sign_in(conn, eve)
    for path in ("/admin/credits/", "/admin/credits/?days=90", "/admin/credits/entries", "/admin/credits/entries.csv"):
        page = browser.get(path).text
        for private in ("apollo", "mercury", "2026-117", "review-agent", "Top-up"):
            assert private not in page, (path, private)
    assert "2 credits" not in _text(browser.get("/admin/credits/").text)
    assert "claim" in browser.get("/admin/credits/prices").text
