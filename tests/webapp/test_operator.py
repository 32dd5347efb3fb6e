"""The operator console: its pages, its actions on other owners, and what it never shows."""

import re
import time
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

from werkzeug.test import TestResponse

from bus.auth import identities, login_links, sessions
from bus.auth.identities import IdentityClaims
from bus.billing import credits
from bus.config.redaction import MaskedSetting
from bus.coordination import leases, posts, presence, sequences, tasks
from bus.db import Connection, Database
from bus.operations import console_queries, jobs, process_registry
from bus.tenancy import audit, invites, owners
from bus.tenancy.owners import Owner
from tests.assertions import database_checksum
from tests.concurrency import run_jobs_concurrently, stretched
from tests.factories import make_agent, make_owner, make_project
from tests.webapp.fake_oidc import FakeOidcProvider
from tests.webapp.oauth_flow import follow_provider_redirect, start_provider_sign_in
from tests.webapp.sample_data import SampleData
from tests.webapp.web_client import Browser, FormParser, WebApp
from webapp.blueprints import OperatorBlueprint

_WORK = ("session", "secret", "sealed", "service_sample")


def _age(db: Database, owner: Owner, minutes: int = 61) -> None:
    """Let this owner have signed in so many minutes ago."""
    with db.connection() as conn:
        conn.execute(
            "UPDATE session SET authenticated_at = clock_timestamp() - make_interval(mins => %s) WHERE owner_id = %s",
            (minutes, owner.id),
        )


def _acts(conn: Connection, owner_id: int) -> list[tuple[str, str]]:
    return [(one.action, one.actor) for one in audit.list_for_owner(conn, owner_id)]


def test_operator_actions_are_recorded_in_the_owners_audit_log(
    operator_browser: Browser, site: WebApp, db: Database, sample: SampleData
) -> None:
    ada = sample.owner
    with db.connection() as conn:
        theirs = site.new_browser().sign_in(conn, ada)
    page = f"/operator/owners/{ada.id}"
    # Invalid forms show an error and change nothing.
    operator_browser.get(page)
    assert "Reason is required" in operator_browser.submit(f"{page}/suspend").text
    operator_browser.get(page)
    assert "use another wording" in operator_browser.submit(f"{page}/suspend", suspend_reason="credits").text
    operator_browser.get(page)
    assert operator_browser.submit(f"{page}/grant", amount="0", grant_reason="x").status_code == 400
    operator_browser.get(page)
    assert (
        operator_browser.submit(f"{page}/grant", amount="7", grant_reason="x", reference="invoice-1").status_code == 400
    )
    # A repeated submission grants once; another amount under the same reference is refused.
    operator_browser.get(page)
    fields = {
        **FormParser(operator_browser.current_page.text).forms[f"{page}/grant"],
        "amount": "500",
        "grant_reason": "for the outage",
    }
    for _ in range(2):
        assert operator_browser.post(f"{page}/grant", data=fields).status_code == 303
    refused = operator_browser.post(f"{page}/grant", data={**fields, "amount": "501"})
    assert (refused.status_code, "was used for grant of 500" in refused.text) == (400, True)
    shown = operator_browser.get(page).text
    assert "500" in shown
    assert "boss: for the outage" in shown
    operator_browser.submit(f"{page}/plan", plan="comped")
    operator_browser.get(page)
    operator_browser.submit(f"{page}/suspend", suspend_reason="a token is public")
    assert "a token is public" in operator_browser.get(page).text
    operator_browser.submit(f"{page}/lift", lift_reason="revoked by now")
    assert "Suspend ada" in operator_browser.get(page).text
    assert theirs.get("/account/").status_code == 200
    operator_browser.submit(f"{page}/sign-out")
    assert theirs.get("/account/").status_code == 303
    operator_browser.get("/operator/invites/")
    invite = sample.route_values["invite_id"]
    assert operator_browser.submit(f"/operator/invites/{invite}/revoke").status_code == 303
    assert f"invites/{invite}/" not in operator_browser.get("/operator/invites/").text
    assert operator_browser.get("/operator/owners/987654321").status_code == 404
    with db.connection() as conn:
        assert _acts(conn, ada.id)[:6] == [
            ("invite.revoke", "boss"), ("session.end_all", "boss"), ("owner.lift", "boss"), ("owner.suspend", "boss"),
            ("credit.plan", "boss"), ("credit.add", "boss"),
        ]  # fmt: skip
        summary = console_queries.get_owner(conn, ada.id)
        assert (summary.balance, summary.plan, summary.suspended_at) == (500, "comped", None)
        # Concurrent submissions grant once as well.
        token = fields["csrf_token"]
    sent = {**fields, "csrf_token": token, "reference": "00112233445566aa"}
    cookies = operator_browser.cookies()

    def press() -> int:
        browser = site.new_browser()
        for name, value in cookies.items():
            browser.flask_client.set_cookie(name, value, domain="bus.example.org", secure=True)
        return browser.post(f"{page}/grant", data=sent).status_code

    assert run_jobs_concurrently(*[press] * 6) == [303] * 6
    with db.connection() as conn:
        assert console_queries.get_owner(conn, ada.id).balance == 1000


def test_after_an_hour_an_operator_signs_in_again_and_the_form_is_kept(
    operator_browser: Browser, site: WebApp, db: Database, boss: Owner, sample: SampleData
) -> None:
    page = f"/operator/owners/{sample.owner.id}"
    operator_browser.get(page)
    form = FormParser(operator_browser.current_page.text).forms[f"{page}/grant"]
    _age(db, boss)
    # Pages remain readable and announce the sign-in.
    assert "sign in again" in operator_browser.get(page).text
    answer = operator_browser.submit(
        f"{page}/grant", amount="75", grant_reason="<b>for</b> patience", reference=form["reference"]
    )
    assert (answer.status_code, answer.location.partition("?")[0]) == (303, "/operator/again")
    back = parse_qs(urlsplit(answer.location).query)["next"][0]
    assert back.startswith(f"{page}?typed=")
    asks = operator_browser.get(answer.location)
    assert "llm-bus login-link boss" in asks.text
    # A link of another owner is refused, is not used up, and changes nothing.
    with db.connection() as conn:
        stranger = make_owner(conn, "eve")
        theirs = login_links.create_login_link(conn, stranger, actor="cli")
        mine = login_links.create_login_link(conn, boss, actor="cli")
    operator_browser.get(f"/sign-in/link/{theirs}")
    refused = operator_browser.submit(f"/sign-in/link/{theirs}")
    assert refused.location.startswith("/operator/again")
    assert "That is not the account that is signed in here" in operator_browser.get(refused.location).text
    operator_browser.get(f"/sign-in/link/{mine}")
    done = operator_browser.submit(f"/sign-in/link/{mine}")
    assert done.location == back
    shown = FormParser(operator_browser.get(back).text).forms[f"{page}/grant"]
    assert shown["reference"] == form["reference"]
    assert 'value="75"' in operator_browser.current_page.text
    assert "&lt;b&gt;for&lt;/b&gt; patience" in operator_browser.current_page.text
    # The other forms of the page stay empty.
    assert operator_browser.current_page.text.count("patience") == 1
    with db.connection() as conn:
        assert credits.find_account(conn, sample.owner.id) is None
    assert operator_browser.submit(f"{page}/grant").status_code == 303
    with db.connection() as conn:
        assert console_queries.get_owner(conn, sample.owner.id).balance == 75
        assert conn.fetch_one("SELECT used_at IS NULL FROM login_link WHERE owner_id = %s", (stranger.id,)) == (True,)
        # Another operator does not see the saved form.
        other = owners.add(conn, "other@example.org", handle="other", operator=True, actor="cli")
        assert 'value="75"' not in site.new_browser().sign_in(conn, other).get(back).text
        held = site.new_browser()
    # Afterwards eve's link works again.
    held.get(f"/sign-in/link/{theirs}")
    assert held.submit(f"/sign-in/link/{theirs}").status_code == 303


def test_every_operator_action_requires_a_recent_sign_in(
    operator_browser: Browser, site: WebApp, db: Database, boss: Owner, sample: SampleData
) -> None:
    token = operator_browser.get_csrf_token()
    values = {"owner_id": sample.owner.id, "invite_id": sample.route_values["invite_id"], "name": "prune"}
    with db.transaction() as conn:
        jobs.register_jobs(conn, [jobs.JobDefinition("prune", "Tidies.", 3600, 0)])
    _age(db, boss)
    with db.connection() as conn:
        before = database_checksum(conn)
    seen = 0
    with site.app.test_request_context():
        paths = [
            rule.build({name: values[name] for name in rule.arguments})[1]  # type: ignore[index]
            for rule in site.app.url_map.iter_rules()
            if isinstance(site.app.blueprints.get(rule.endpoint.partition(".")[0]), OperatorBlueprint)
            and "POST" in (rule.methods or ())
        ]
    for path in paths:
        sent = {"csrf_token": token, "plan": "team", "suspend_reason": "x", "lift_reason": "x", "amount": "5"}
        answer = operator_browser.post(path, data=sent)
        assert (answer.status_code, answer.location.partition("?")[0]) == (303, "/operator/again"), path
        page = parse_qs(urlsplit(answer.location).query)["next"][0]
        assert operator_browser.get(page).status_code == 200, page
        seen += 1
    assert seen == 7
    with db.connection() as conn:
        after = database_checksum(conn)
    assert {name for name in before if before[name] != after[name]} <= set(_WORK)


def test_a_proxy_session_is_not_enough_for_operator_actions(
    make_web: Callable[..., WebApp], db: Database, boss: Owner
) -> None:
    secret = "a proxy's secret, long enough"
    web = make_web(SSO_HEADER="X-Email", SSO_PROXY_SECRET=secret)
    with db.transaction() as conn:
        identities.link_identity(conn, boss, IdentityClaims("sso-header", "boss@example.org", "boss@example.org"))
        jobs.register_jobs(conn, [jobs.JobDefinition("prune", "Tidies.", 3600, 0)])
    browser = web.new_browser(HTTP_X_EMAIL="boss@example.org", HTTP_X_LLM_BUS_PROXY_SECRET=secret)
    browser.get("/sign-in")
    assert browser.get("/operator/jobs/").status_code == 200
    assert browser.submit("/operator/jobs/prune/run").location.startswith("/operator/again")
    with db.connection() as conn:
        assert jobs.list_run_requests(conn) == []


def test_a_provider_must_authenticate_the_operator_again(
    web: WebApp, issuer: FakeOidcProvider, db: Database, boss: Owner
) -> None:
    with db.transaction() as conn:
        identities.link_identity(conn, boss, IdentityClaims(issuer.url, "ada-at-the-issuer", "ada@example.org"))
        jobs.register_jobs(conn, [jobs.JobDefinition("prune", "Tidies.", 3600, 0)])
    operator_browser = web.new_browser()

    def come_in(page: str) -> TestResponse:
        return operator_browser.get(follow_provider_redirect(start_provider_sign_in(operator_browser, page=page)))

    # The provider authenticated the operator two hours ago, and that time counts.
    issuer.claim_overrides = {"auth_time": int(time.time()) - 7200}
    assert come_in("/sign-in").status_code == 303
    operator_browser.get("/operator/jobs/")
    asks = operator_browser.submit("/operator/jobs/prune/run").location
    address = start_provider_sign_in(operator_browser, page=asks)
    sent = parse_qs(urlsplit(address).query)
    assert (sent["prompt"], sent["max_age"]) == (["login"], ["0"])
    stale = operator_browser.get(follow_provider_redirect(address))
    assert (stale.status_code, "did not ask you to sign in again" in stale.text) == (400, True)
    # Another subject of the provider is another owner.
    issuer.claim_overrides = {"auth_time": int(time.time()), "sub": "another"}
    refused = come_in(asks)
    assert refused.location.startswith("/operator/again")
    operator_browser.get("/operator/jobs/")
    assert operator_browser.submit("/operator/jobs/prune/run").location.startswith("/operator/again")
    issuer.claim_overrides = {"auth_time": int(time.time())}
    assert come_in(asks).location == "/operator/jobs/"
    operator_browser.get("/operator/jobs/")
    assert operator_browser.submit("/operator/jobs/prune/run").location == "/operator/jobs/"
    # Without auth_time nothing is proven: the parameters that asked for a prompt passed through the browser.
    _age(db, boss)
    issuer.claim_overrides = {}
    refused = come_in(asks)
    assert refused.location.startswith("/operator/again")
    page = operator_browser.get(refused.location)
    assert "does not state when you signed in" in page.text
    assert f"llm-bus login-link {boss.handle}" in page.text

    def run() -> str:
        token = {"csrf_token": operator_browser.get_csrf_token()}
        return str(operator_browser.post("/operator/jobs/prune/run", data=token).location)

    assert run().startswith("/operator/again")
    # The one-time link is the way that every provider leaves.
    operator_browser.get(refused.location)
    with db.connection() as conn:
        operator_browser.sign_in(conn, boss)
    assert run() == "/operator/jobs/"
    with db.connection() as conn:
        assert [one.name for one in jobs.list_run_requests(conn)] == ["prune"]
        idle_timeout = web.app.extensions["bus.options"].session_idle_timeout
        (mine,) = sessions.list_sessions(conn, boss.id, idle_timeout=idle_timeout)
        assert mine.time_since_authentication is not None
        assert mine.time_since_authentication.total_seconds() < 60
    # An ordinary sign-in does not force a prompt.
    assert "prompt" not in parse_qs(urlsplit(start_provider_sign_in(web.new_browser())).query)


def test_operators_never_see_content_of_owners(operator_browser: Browser, site: WebApp, db: Database) -> None:
    with db.transaction() as conn:
        owner = make_owner(conn, "tenant")
        project = make_project(conn, "apollo", owner)
        agent, mate = make_agent(conn, project, "a", lane="core"), make_agent(conn, project, "b", lane="core")
        marks = [f"mark{number}q" for number in range(14)]
        body, subject, ref, tag, surface, note, title, detail, reason, status, number_note, ended, reply, url = marks
        presence.register(conn, agent.ctx, "core", status=status)
        sequences.claim(conn, agent.ctx, "adr", note=number_note)
        made = posts.create(conn, agent.ctx, body, to_actor="b", subject=subject, ref=ref, tag=tag)
        posts.create(conn, mate.ctx, reply, to_actor="a", reply_to=made.post_id)
        leases.acquire(conn, agent.ctx, f"src/{surface}.py", note=note)
        task = tasks.create(conn, agent.ctx, title, detail=detail).task_id
        tasks.start(conn, agent.ctx, task)
        tasks.block(conn, agent.ctx, task, reason)
        # The owner's audit log names the affected resources.
        audit.record(conn, owner.id, "tenant", "lease.release", f"src/{surface}.py", project_id=project.id, held_by="a")
        audit.record(conn, owner.id, "tenant", "webhook.add", f"https://hooks.example.org/{url}", project_id=project.id)
        invites.create_for_owner(conn, project.id, actor="tenant")
        run = jobs.begin_run(conn, "expire_leases")
        message = f"JobFailed: project 1: CheckViolation: the row is bad\nDETAIL:  Failing row contains (1, {ended})."
        jobs.finish_run(conn, run, "failed", {}, message)
        jobs.register_jobs(conn, [jobs.JobDefinition("expire_leases", "Ends leases.", 10, 0)])
    values = {"owner_id": owner.id}
    looked = set()
    with site.app.test_request_context():
        rules = [rule for rule in site.app.url_map.iter_rules() if "GET" in (rule.methods or ())]
        paths = [
            (rule.endpoint, rule.build({name: values.get(name, ending) for name in rule.arguments})[1])  # type: ignore[index]
            for rule in rules
            for ending in ("csv", "jsonl")
            if isinstance(site.app.blueprints.get(rule.endpoint.partition(".")[0]), OperatorBlueprint)
        ]
    for endpoint, path in paths:
        for query in ("", "?quiet=1", "?search=tenant", "?owner=tenant"):
            answer = operator_browser.get(path + query)
            assert answer.status_code == 200, path
            assert [mark for mark in marks if mark in answer.text] == [], path
            looked.add(endpoint)
    assert len(looked) == 10
    # The pages did show this owner.
    assert "the row is bad" in operator_browser.get("/operator/jobs/").text
    assert "lease.release" in operator_browser.get("/operator/audit/").text
    assert "apollo" in operator_browser.get("/operator/projects/").text


def test_the_overview_reports_problems_while_redis_is_down(
    make_web: Callable[..., WebApp], db: Database, boss: Owner
) -> None:
    web = make_web(REDIS_URL="redis://127.0.0.1:1/0")
    with db.transaction() as conn:
        sample = make_project(conn)
        make_agent(conn, sample)
        process_registry.record_heartbeat(conn, "w", "web", pid=1, uptime_seconds=1, settings={}, metrics={})
        jobs.register_jobs(conn, [jobs.JobDefinition("prune", "Tidies.", 3600, 0)])
        conn.execute("INSERT INTO job_run (name, started_at) VALUES ('prune', clock_timestamp() - interval '1 day')")
    with db.connection() as conn:
        operator_browser = web.new_browser().sign_in(conn, boss)
    page = operator_browser.get("/operator/").text
    assert "Problem: Redis does not answer; no gateway runs; no worker runs; no scheduler runs." in page
    # A live region within the part would be read out at every poll; the script announces changes of this one.
    part = operator_browser.get("/operator/", headers={"X-Part": "1"}).text
    assert ("data-announce" in part, 'role="status"' in part) == (True, False)
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        assert operator_browser.get("/operator/", headers={"X-Part": "1"}).status_code == 200
        taken.append(time.perf_counter() - started)
    # A look at Redis is limited to 0.5 s, and several callers share one.
    assert min(taken) < stretched(0.1)
    with db.transaction() as conn:
        for kind in ("gateway", "worker", "beat"):
            process_registry.record_heartbeat(conn, kind, kind, pid=2, uptime_seconds=9, settings={}, metrics={})
    assert "Problem: Redis does not answer." in operator_browser.get("/operator/").text
    # Without Redis another scheduler runs the jobs; here none did.
    with db.connection() as conn:
        alone = make_web().new_browser().sign_in(conn, boss).get("/operator/").text
    assert "Problem: the job prune is late." in alone


def test_a_healthy_service_and_its_reported_settings_are_shown(operator_browser: Browser, db: Database) -> None:
    shown = {
        "DATABASE_URL": MaskedSetting("postgresql://bus:•••@db/bus", False),
        "HOST": MaskedSetting("127.0.0.1", True),
    }
    with db.transaction() as conn:
        for number, kind in enumerate(("web", "gateway", "gateway")):
            process_registry.record_heartbeat(
                conn, f"p{number}", kind, pid=number, uptime_seconds=9, settings=shown, metrics={}
            )
    assert "All is well." in operator_browser.get("/operator/").text
    page = operator_browser.get("/operator/settings/").text
    assert page.count("postgresql://bus:•••@db/bus") == 2
    assert "environment" in page
    assert "default" in page


def test_the_overview_has_nothing_that_differs_at_each_poll(operator_browser: Browser, db: Database) -> None:
    with db.transaction() as conn:
        process_registry.record_heartbeat(conn, "w", "web", pid=1, uptime_seconds=1, settings={}, metrics={})
    part = operator_browser.get("/operator/", headers={"X-Part": "1"})
    # Ages are in time elements, which the script keeps current.
    assert re.search(r'<time [^>]*data-ago="long">', part.text)
    assert not re.search(r"\d s ago|\bago(?!</time>|=)", part.text)
    # Round trips are in steps, since each differs a little.
    assert re.search(r"answers within \d+ ms|answers in over 2 s", part.text)


def test_lists_are_paged_and_keep_their_search(operator_browser: Browser, db: Database) -> None:
    with db.transaction() as conn:
        made = [make_owner(conn, f"many-{number}") for number in range(52)]
        for number in range(12):
            make_project(conn, f"p{number}", made[0])
    page = operator_browser.get("/operator/owners/?search=MANY").text
    assert ("many-51" in page, "many-1<" in page) == (True, False)
    assert f"search=MANY&amp;before={made[2].id}" in page
    older = operator_browser.get(f"/operator/owners/?search=MANY&before={made[2].id}").text
    assert ("many-1<" in older, "many-51" in older) == (True, False)
    first = operator_browser.get(f"/operator/owners/{made[0].id}").text
    assert ("p11<" in first, "p1<" in first, "Older projects" in first) == (True, False, True)
    assert "No owners match" in operator_browser.get("/operator/owners/?search=no-such-owner").text
    assert "p11" in operator_browser.get("/operator/projects/?search=many-0/&state=open").text
    archived = operator_browser.get("/operator/projects/?search=many-0/&state=archived").text
    assert "No projects match" in archived
    # The chips keep the search, and the search keeps the chip.
    assert 'href="/operator/projects/?search=many-0/&amp;state=open"' in archived
    assert '<input type="hidden" name="state" value="archived">' in archived
    suspended = operator_browser.get("/operator/owners/?suspended=y").text
    assert 'href="/operator/owners/?suspended=y" aria-current="page">Suspended' in suspended
    assert "No owners match" in suspended
