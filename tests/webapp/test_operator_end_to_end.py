"""Operator actions with real processes: browser, web, gateway, worker, and an agent that keeps calling."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from playwright.sync_api import Browser, expect

from bus.db import Database
from bus.operations import console_queries, jobs
from bus.tenancy import owners
from tests.factories import make_agent, make_owner, make_project
from tests.mcp_gateway.processes import running_gateways as gateways
from tests.webapp import scenario_steps
from tests.webapp.browser import open_page
from tests.webapp.live_server import running_live_server
from tests.workers.processes import running_workers as workers
from tests.workers.processes import wait_until

_BODY = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "whoami", "arguments": {}}}
_STABLE = {"error": "suspended due to non-payment"}


class _Agent:
    """An agent that calls continuously; `responses` holds each response that differs from the previous one."""

    def __init__(self, url: str, token: str) -> None:
        self.responses: list[tuple[int, object]] = []
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    @contextmanager
    def at_work(self) -> Iterator["_Agent"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join()

    def _work(self) -> None:
        with httpx2.Client(headers=self._headers) as client:
            while not self._over.is_set():
                answer = client.post(self._url, json=_BODY)
                now = (answer.status_code, answer.json() if answer.status_code != 200 else None)
                if not self.responses or self.responses[-1] != now:
                    self.responses.append(now)
                self._over.wait(0.02)


def _known(db: Database) -> list[jobs.JobDefinition]:
    with db.connection() as conn:
        return jobs.list_definitions(conn)


def test_an_operator_suspends_an_owner_and_runs_a_job_while_an_agent_works(
    chromium: Browser, database_url: str, redis_url: str, db: Database
) -> None:
    with db.transaction() as conn:
        boss = owners.add(conn, "boss@example.org", handle="boss", operator=True, actor="cli")
        ada = make_owner(conn, "ada")
        agent = make_agent(conn, make_project(conn, "apollo", ada), "api-agent")
    with (
        gateways(database_url) as (gateway,),
        workers(database_url, redis_url, "worker") as (worker,),
        running_live_server(database_url, MCP_URL=gateway.url) as url,
        open_page(chromium) as page,
        _Agent(gateway.url, agent.token).at_work() as busy,
    ):
        assert scenario_steps.call_tool(gateway.url, agent.token, "whoami")["actor"] == "ada/api-agent"
        scenario_steps.sign_in(page, url, db, boss)
        page.locator("header .account summary").click()
        page.get_by_role("link", name="Operator", exact=True).click()
        wait_until(lambda: busy.responses == [(200, None)])
        page.get_by_role("navigation", name="Operator").get_by_role("link", name="Owners").click()
        page.get_by_label("Handle or email").fill("ADA@")
        page.get_by_role("button", name="Search").click()
        page.get_by_role("link", name="ada", exact=True).click()
        page.locator("#suspend_reason").fill("a token is on a public page")
        page.get_by_role("button", name="Suspend ada").click()
        expect(page.get_by_text("ada suspended: the next call of each agent is refused.")).to_be_visible()
        # The message appears after the commit, so the next call is refused.
        answer = httpx2.post(gateway.url, json=_BODY, headers={"Authorization": f"Bearer {agent.token}"})
        assert (answer.status_code, answer.json()) == (403, _STABLE)
        page.locator("#lift_reason").fill("it is revoked")
        page.get_by_role("button", name="Lift suspension").click()
        expect(page.get_by_text("Suspension of ada lifted.")).to_be_visible()
        assert scenario_steps.call_tool(gateway.url, agent.token, "whoami")["actor"] == "ada/api-agent"
        wait_until(lambda: busy.responses == [(200, None), (403, _STABLE), (200, None)])
        page.locator("#amount").fill("1200")
        page.locator("#grant_reason").fill("for the trouble")
        page.get_by_role("button", name="Grant").dblclick()
        expect(page.get_by_text("1,200 credits granted to ada.")).to_be_visible()
        with db.connection() as conn:
            assert console_queries.get_owner(conn, ada.id).balance == 1200
        # No scheduler runs, so the worker only starts requested jobs.
        wait_until(lambda: _known(db), worker)
        page.goto(f"{url}/operator/jobs/")
        page.get_by_role("button", name="Run prune now").click()
        expect(page.get_by_text("prune queued.")).to_be_visible()
        expect(page.get_by_text("requested by boss")).to_be_visible(timeout=30_000)
        row = page.get_by_role("row").filter(has_text="prune").filter(has_text="requested by boss")
        expect(row.get_by_text("ok", exact=True)).to_be_visible(timeout=30_000)
        page.goto(f"{url}/operator/settings/")
        expect(page.get_by_role("heading", name="worker")).to_be_visible()
        password = database_url.split("@")[0].rpartition(":")[2]
        assert "DATABASE_URL" in page.content()
        assert f":{password}@" not in page.content()
        page.goto(f"{url}/operator/audit/?actor=boss")
        for action in ("job.run", "credit.add", "owner.lift", "owner.suspend"):
            expect(page.get_by_text(action)).to_be_visible()
        assert worker.popen.poll() is None
    # Others get 404, signed in or not.
    with running_live_server(database_url) as url, open_page(chromium) as page:
        for path in ("/operator", "/operator/", f"/operator/owners/{ada.id}", "/operator/audit/export.csv"):
            shown = page.goto(url + path)
            assert shown is not None
            assert shown.status == 404
        scenario_steps.sign_in(page, url, db, ada)
        expect(page.get_by_role("link", name="Operator", exact=True)).to_have_count(0)
        shown = page.goto(f"{url}/operator/")
        assert shown is not None
        assert shown.status == 404
        expect(page.get_by_role("heading", name="Page not found")).to_be_visible()
