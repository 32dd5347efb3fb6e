"""Projects, their participants, tokens and invites in the admin pages."""

import re

from werkzeug.test import TestResponse

from bus.coordination import leases, posts
from bus.db import Database
from bus.errors import NotAuthenticated
from bus.notifications import outbox
from bus.rules.token_format import fingerprint as hashed
from bus.tenancy import audit, invite_queries, invites, participant_queries, participation_queries, projects, tokens
from bus.tenancy.projects import ProjectSettings
from tests.assertions import database_checksum
from tests.factories import make_agent, make_owner
from tests.webapp.sample_data import SampleData, create_sample_data, project_path
from tests.webapp.web_client import Browser, WebApp

_TOKEN = re.compile(r"lbus_[0-9A-Za-z]{49}")


def _works(db: Database, token: str) -> bool:
    with db.connection() as conn:
        ctx = tokens.find_caller(conn, hashed(token))
        assert ctx is not None
        try:
            participant_queries.whoami(conn, ctx)
        except NotAuthenticated:
            return False
        return True


def _shown_once(browser: Browser, answer: TestResponse) -> str:
    """Follow the redirect to the token page; returns the token, after checking that it is shown only once."""
    assert answer.status_code == 303, answer.text
    assert answer.location.startswith("/admin/cards/")
    head = browser._open("HEAD", answer.location)
    assert head.status_code == 404
    card = browser.get(answer.location)
    assert card.status_code == 200
    assert card.headers["Cache-Control"] == "no-store"
    again = browser.get(answer.location)
    assert again.status_code == 404
    assert "could be viewed once" in again.text
    (token,) = set(_TOKEN.findall(card.text))
    assert token not in again.text
    return token


def test_the_first_project_leads_to_the_first_agent(site: WebApp, db: Database) -> None:
    with db.transaction() as conn:
        owner = make_owner(conn, "grace")
    with db.connection() as conn:
        browser = site.new_browser().sign_in(conn, owner)
    assert "Start with a project" in browser.get("/admin/").text
    browser.get("/admin/projects/new")
    assert "is required" in browser.submit("", name="  ").text
    overview = browser.follow_redirects(browser.submit("", name="apollo"))
    assert "Add your first agent" in overview.text
    (project_id,) = (one.id for one in _projects(db, owner.id))
    browser.get(f"/admin/projects/{project_id}/participants/new")
    token = _shown_once(browser, browser.submit("", name="agent-one"))
    overview = browser.get(f"/admin/projects/{project_id}/")
    assert "Waiting for the first agent" in overview.text
    assert "agent-one" in overview.text
    assert _works(db, token)
    with db.transaction() as conn:
        ctx = tokens.find_caller(conn, hashed(token))
        assert ctx is not None
        posts.create(conn, ctx, "hello", to_actor="grace")
        conn.execute(
            "INSERT INTO presence (project_id, participation_id, last_seen) VALUES (%s, %s, clock_timestamp())",
            (project_id, ctx.participation_id),
        )
    overview = browser.get(f"/admin/projects/{project_id}/")
    assert "Waiting for the first agent" not in overview.text
    assert "handed off" in overview.text


def _projects(db: Database, owner_id: int) -> list[projects.Project]:
    with db.connection() as conn:
        return projects.list_projects(conn, owner_id=owner_id)


def test_the_inbox_names_what_needs_attention(ada: Browser, sample: SampleData) -> None:
    page = "".join(ada.get(f"/admin/?state={state}").text for state in ("overdue", "blocked", "conflicts"))
    for text in ("Who owns the invoices now?", "Review the migration", "src/orders/total.py", "expires in 2 days"):
        assert text.replace("'", "&#39;") in re.sub(r"<time[^>]*>|</time>", "", page)
    assert "apollo" in page
    assert "an older one" not in page
    assert "an older one" in ada.get("/admin/projects/").text


def test_the_live_part_of_a_page_is_served_by_itself(ada: Browser, sample: SampleData) -> None:
    for path in (
        "/admin/",
        *(project_path(sample, rest) for rest in ("", "participants/", "handoffs/", "tasks/", "ledger/")),
    ):
        part = ada.get(path, headers={"X-Part": "1"})
        assert "<html" not in part.text
        same = ada.get(path, headers={"X-Part": "1", "If-None-Match": part.headers["ETag"]})
        assert same.status_code == 304


def test_projects_are_renamed_configured_archived_and_reopened(ada: Browser, sample: SampleData, db: Database) -> None:
    settings = project_path(sample, "settings/")
    ada.get(settings)
    assert ada.submit(f"{settings}name", name="website").status_code == 400
    ada.get(settings)
    ada.submit(f"{settings}name", name="artemis")
    ada.get(settings)
    assert ada.submit(settings, presence_minutes="0").status_code == 400
    ada.get(settings)
    wanted = {"presence_minutes": "5", "stall_minutes": "60", "gone_minutes": "120", "pause_minutes": "10"}
    ada.submit(settings, **wanted, escalation_email="oncall@example.org", case_insensitive_paths="y")
    with db.connection() as conn:
        assert projects.get(conn, sample.full_project.id).name == "artemis"
        assert projects.get_settings(conn, sample.full_project.id) == ProjectSettings(
            300, 3600, 7200, 600, "oncall@example.org", case_insensitive_paths=True
        )
    assert "checked" in ada.get(settings).text
    ada.get(settings)
    ada.submit(f"{settings}archive")
    assert "This project is archived" in ada.get(project_path(sample)).text
    refused = ada.post(
        project_path(sample, "handoffs/new"),
        data={"csrf_token": ada.get_csrf_token(), "to_actor": "carol", "body": "x"},
    )
    assert refused.status_code == 400
    assert "archived" in refused.text
    ada.get(settings)
    ada.submit(f"{settings}reopen")
    with db.connection() as conn:
        assert projects.get(conn, sample.full_project.id).archived_at is None


def test_a_webhook_shows_its_secret_once_and_is_removed(ada: Browser, sample: SampleData, db: Database) -> None:
    settings = project_path(sample, "settings/")
    ada.get(settings)
    assert ada.submit(f"{settings}webhooks", url="ftp://example.org").status_code == 400
    ada.get(settings)
    card = ada.get(ada.submit(f"{settings}webhooks", url="https://example.org/hook").location).text
    (secret,) = set(re.findall(r"whsec_[A-Za-z0-9+/=]{20,}", card))
    page = ada.get(settings).text
    assert "https://example.org/hook" in page
    assert secret not in page
    with db.connection() as conn:
        made = outbox.list_webhooks(conn, sample.owner.id, project_id=sample.full_project.id)[-1]
    assert made.secret == secret
    ada.submit(f"{settings}webhooks/{made.id}/remove")
    assert "https://example.org/hook" not in ada.get(settings).text


def test_a_project_is_deleted_only_by_typing_its_name(ada: Browser, sample: SampleData, db: Database) -> None:
    settings = project_path(sample, "settings/")
    page = ada.get(settings).text
    assert "events in the ledger" in page
    ada.submit(f"{settings}delete", confirm="apolo")
    with db.connection() as conn:
        before = projects.get(conn, sample.full_project.id)
    assert before.archived_at is None
    ada.get(settings)
    assert ada.submit(f"{settings}delete", confirm="apollo").location == "/admin/projects/"
    assert ada.get(project_path(sample)).status_code == 404
    with db.connection() as conn:
        assert conn.fetch_one("SELECT count(*) FROM event WHERE project_id = %s", (sample.full_project.id,)) == (0,)
        assert "project.purge" in {act.action for act in audit.list_for_owner(conn, sample.owner.id)}


def test_a_token_is_rotated_added_and_revoked(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        agent = make_agent(conn, sample.full_project, "rotated")
    page = project_path(sample, f"participants/{agent.ctx.participation_id}")
    ada.get(page)
    second = _shown_once(ada, ada.submit(f"{page}/tokens", label="laptop", lives="7"))
    assert _works(db, agent.token)
    assert _works(db, second)
    ada.get(page)
    third = _shown_once(ada, ada.submit(f"{page}/rotate"))
    assert [_works(db, token) for token in (agent.token, second, third)] == [False, False, True]
    shown = ada.get(page).text
    assert "laptop" in shown
    with db.connection() as conn:
        newest = tokens.list_tokens(conn, agent.ctx.participation_id)[0]
    ada.submit(f"{page}/tokens/{newest.id}/revoke")
    assert not _works(db, third)
    ada.get(page)
    fourth = _shown_once(ada, ada.submit(f"{page}/rotate"))
    ada.get(page)
    ada.submit(f"{page}/revoke")
    assert not _works(db, fourth)


def test_a_token_of_the_original_is_listed_as_legacy_until_it_is_rotated(
    ada: Browser, sample: SampleData, db: Database
) -> None:
    with db.transaction() as conn:
        agent = make_agent(conn, sample.full_project, "imported")
        conn.execute("UPDATE token SET legacy = true WHERE id = %s", (agent.ctx.token_id,))
    page = project_path(sample, f"participants/{agent.ctx.participation_id}")
    shown = ada.get(page).text
    assert ">legacy<" in shown
    assert "rotate it when it suits you" in shown
    ada.submit(f"{page}/rotate")
    shown = ada.get(page).text
    # The revoked token stays in the list, and needs nothing any longer.
    assert ">legacy<" in shown
    assert "rotate it when it suits you" not in shown


def test_credentials_are_shown_only_in_the_browser_that_created_them(
    site: WebApp, ada: Browser, sample: SampleData, db: Database
) -> None:
    with db.connection() as conn:
        other = site.new_browser().sign_in(conn, sample.owner)
    ada.get(project_path(sample, "participants/new"))
    address = ada.submit("", name="secret-agent").location
    assert other.get(address).status_code == 404
    card = ada.get(address)
    assert card.status_code == 200
    (token,) = set(_TOKEN.findall(card.text))
    with db.connection() as conn:
        stored = conn.fetch_all("SELECT lookup || box FROM sealed")
    assert all(token.encode() not in row[0] for row in stored)


def test_the_token_page_has_setup_for_every_client_and_a_file(ada: Browser, sample: SampleData) -> None:
    ada.get(project_path(sample, "participants/new"))
    card = ada.get(ada.submit("", name="secret-agent").location).text
    for client in ("Claude Code", "Codex", "Cursor", "Gemini CLI", "VS Code", "OpenCode", "Windsurf"):
        assert client in card
    assert 'download="mcp.json" href="data:application/json' in card


def test_a_participation_is_changed_and_removed(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        agent = make_agent(conn, sample.full_project, "termed")
    page = project_path(sample, f"participants/{agent.ctx.participation_id}")
    ada.get(page)
    ada.submit(f"{page}/terms", lane="docs", is_admin="y")
    with db.connection() as conn:
        seen = participant_queries.get_participation_detail(
            conn, sample.owner.id, sample.full_project.id, agent.ctx.participation_id
        )
    assert (seen.granted_lane, seen.is_admin) == ("docs", True)
    ada.get(page)
    ada.submit(f"{page}/remove")
    assert ada.get(page).status_code == 404
    assert not _works(db, agent.token)


def test_the_form_says_that_a_name_is_taken(ada: Browser, sample: SampleData) -> None:
    ada.get(project_path(sample, "participants/new"))
    for name, message in (
        ("api-agent", "in this project already"),
        ("retired", "not handed out again"),
        ("ada", "owner"),
    ):
        answer = ada.submit("", name=name)
        assert answer.status_code == 400
        assert message in answer.text


def test_an_invite_is_created_shown_once_listed_and_revoked(ada: Browser, sample: SampleData, db: Database) -> None:
    ada.get(project_path(sample, "invites/new"))
    assert ada.submit("", participant_name="api-agent").status_code == 400
    ada.get(project_path(sample, "invites/new"))
    made = ada.submit("", participant_name="fresh", lane="docs", ttl_hours="1")
    card = ada.get(made.location)
    (code,) = set(re.findall(r"inv_[0-9a-z]{26}", card.text))
    assert "--fail-with-body" in card.text
    assert ada.get(made.location).status_code == 404
    with db.connection() as conn:
        newest = invite_queries.list_invites(conn, sample.full_project.id)[0]
    assert (newest.participant_name, newest.lane, newest.created_by) == ("fresh", "docs", "ada")
    listed = ada.get(project_path(sample, "invites/")).text
    assert code not in listed
    for text in ("open", ">used<", "revoked", "eve@example.org", "newcomer"):
        assert text in listed
    ada.submit(project_path(sample, f"invites/{newest.id}/revoke"))
    with db.connection() as conn:
        assert invite_queries.list_invites(conn, sample.full_project.id)[0].state == "revoked"


def test_the_form_creates_an_invite_for_an_existing_participant(ada: Browser, sample: SampleData, db: Database) -> None:
    ada.get(project_path(sample, "invites/new"))
    assert ada.submit("", participant_id="nonsense").status_code == 404
    ada.get(project_path(sample, "invites/new"))
    ada.submit("", participant_id=str(sample.route_values["participant_id"]))
    with db.connection() as conn:
        assert (
            invite_queries.list_invites(conn, sample.full_project.id)[0].participant_id
            == sample.route_values["participant_id"]
        )


def test_participants_are_created_renamed_and_removed(ada: Browser, sample: SampleData, db: Database) -> None:
    ada.get("/admin/participants/new")
    page = ada.submit("", name="temp", kind="human").location
    ada.get(page)
    assert ada.submit(f"{page}/rename", name="retired").status_code == 400
    ada.get(page)
    ada.submit(f"{page}/rename", name="permanent")
    assert "permanent" in ada.get(page).text
    ada.submit(f"{page}/remove", confirm="temp")
    assert "removed." not in ada.get(page).text
    ada.submit(f"{page}/remove", confirm="permanent")
    shown = ada.get(page).text
    assert "won&#39;t be reused" in shown
    assert "permanent" in ada.get("/admin/participants/").text


def test_removing_a_participant_removes_it_from_every_project(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        agent = make_agent(conn, sample.full_project, "double", lane="core")
        other = make_agent(conn, sample.empty_project, "double")
    page = f"/admin/participants/{agent.ctx.participant_id}"
    ada.get(page)
    ada.submit(f"{page}/remove", confirm="double")
    assert [_works(db, one.token) for one in (agent, other)] == [False, False]
    with db.connection() as conn:
        assert participation_queries.find(conn, sample.empty_project.id, "double") is None
        actions = [act.action for act in audit.list_for_owner(conn, sample.owner.id)][:3]
    assert sorted(actions) == ["participant.remove", "participation.remove", "participation.remove"]


def test_the_audit_log_records_changes_made_in_the_interface(ada: Browser, sample: SampleData) -> None:
    ada.get(project_path(sample, "settings/"))
    ada.submit(project_path(sample, "settings/name"), name="artemis")
    for page in ("/admin/audit/", project_path(sample, "audit/")):
        shown = ada.get(page).text
        assert "project.rename" in shown
        assert "before: apollo" in shown


def test_lists_are_paged_by_key(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        for number in range(55):
            invites.create_for_owner(conn, sample.empty_project.id, actor="ada")
            projects.add(conn, sample.owner.id, f"p-{number:02}", actor="cli")
            make_agent(conn, sample.empty_project, f"agent-{number:02}")
    for path in (
        f"/admin/projects/{sample.empty_project.id}/invites/",
        "/admin/projects/",
        f"/admin/projects/{sample.empty_project.id}/participants/",
        "/admin/participants/",
        "/admin/audit/",
        f"/admin/projects/{sample.empty_project.id}/audit/",
    ):
        seen: set[str] = set()
        address: str | None = path
        pages = 0
        while address:
            page = ada.get(address).text
            pages += 1
            assert len(page) < 120_000
            found = set(re.findall(r'<tr role="row".*?</tr>', page.partition("<tbody")[2], re.S))
            assert not found & seen
            seen |= found
            older = re.search(r'<a class="button" href="([^"]+)">(?:Older|Next)</a>', page)
            address = older[1].replace("&amp;", "&") if older else None
        assert pages >= 2, path


def test_names_and_texts_are_escaped_on_every_page(ada: Browser, sample: SampleData, db: Database) -> None:
    """Names and texts of participants contain markup and template syntax."""
    nasty = "<img src=x>'\"&lt;{{7*7}}"
    with db.transaction() as conn:
        agent = make_agent(conn, sample.full_project, nasty, lane=nasty)
        posts.create(conn, agent.ctx, nasty, to_lane=nasty, subject=nasty, ref=nasty, tag=nasty)
        leases.acquire(conn, agent.ctx, "src/b", note=nasty)
        # Surfaces with markup are refused now; the ledger of an older project may have them.
        conn.execute("UPDATE lease SET surface = 'src/<b>', prefix = 'src/<b>' WHERE surface = 'src/b'")
        projects.rename(conn, sample.full_project.id, nasty, actor="ada")
    for rest in ("", "participants/", "handoffs/", "leases/", "ledger/", "settings/", "audit/", "participants/new"):
        page = ada.get(project_path(sample, rest)).text
        assert "<img src=x>" not in page
        assert "<b>" not in page
        assert "49" not in re.findall(r"\{\{7\*7\}\}|49(?=')", page)
    card = ada.get(_rotated(ada, sample, agent.ctx.participation_id)).text
    assert "<img src=x>" not in card


def _rotated(browser: Browser, sample: SampleData, participation_id: int) -> str:
    page = project_path(sample, f"participants/{participation_id}")
    browser.get(page)
    return str(browser.submit(f"{page}/rotate").location)


def test_two_owners_do_not_see_each_other(site: WebApp, ada: Browser, sample: SampleData, db: Database) -> None:
    """Request every address with ids of another owner, below the own project and below theirs."""
    with db.transaction() as conn:
        mine = create_sample_data(conn, "eve")
    with db.connection() as conn:
        eve = site.new_browser().sign_in(conn, mine.owner)
    token = eve.get_csrf_token()
    for page in ("/admin/", "/admin/projects/", "/admin/participants/", "/admin/audit/"):
        assert "ada/" not in eve.get(page).text
    with db.connection() as conn:
        before = database_checksum(conn)
    seen = 0
    with site.app.test_request_context():
        rules = [rule for rule in site.app.url_map.iter_rules() if rule.rule.startswith("/admin")]
    for rule in rules:
        # Redirects from former addresses do not look up the resource.
        is_redirect = rule.endpoint.startswith("moved_addresses.")
        if not rule.arguments or "key" in rule.arguments or is_redirect:
            continue
        inner = rule.arguments - {"project_id"}
        for values in (
            sample.route_values,
            # Numbers that count within a project exist in every project; only ids of rows are foreign.
            {**sample.route_values, "project_id": mine.full_project.id}
            if inner & {"participation_id", "participant_id", "invite_id", "webhook_id"}
            else sample.route_values,
        ):
            with site.app.test_request_context():
                built = rule.build({name: values[name] for name in rule.arguments})
            assert built is not None
            for method in sorted((rule.methods or set()) & {"GET", "POST"}):
                data = (
                    {"csrf_token": token, "confirm": "apollo", "name": "x", "owner": "ada"}
                    if method == "POST"
                    else None
                )
                answer = eve._open(method, built[1], data=data)
                assert answer.status_code == 404, (method, built[1])
                seen += 1
    assert seen > 60
    with db.connection() as conn:
        after = database_checksum(conn)
    assert {name for name in before if before[name] != after[name]} <= {"session"}


def test_former_addresses_redirect(site: WebApp, ada: Browser, sample: SampleData, db: Database) -> None:
    participation_id = sample.route_values["participation_id"]
    for former, current in (
        ("pictures/?period=90d", "insights/?period=90d"),
        ("pictures/report", "insights/report"),
        ("pictures/report.html", "insights/report.html"),
        ("members/?before=7", "participants/?before=7"),
        ("members/new", "participants/new"),
        (f"members/{participation_id}", f"participants/{participation_id}"),
    ):
        response = ada.get(project_path(sample, former))
        assert (response.status_code, response.location) == (308, project_path(sample, current))
        assert ada.get(response.location).status_code == 200
    with db.transaction() as conn:
        eve = make_owner(conn, "eve")
    with db.connection() as conn:
        other = site.new_browser().sign_in(conn, eve)
    assert other.get(project_path(sample, "members/")).status_code == 404


def test_an_audit_entry_links_to_entries_of_its_kind_and_of_its_actor(ada: Browser, sample: SampleData) -> None:
    for path in ("/admin/audit/", project_path(sample, "audit/")):
        page = ada.get(path).text
        assert "webhook.add" in page
        assert "invite.create" in page
        (address,) = set(re.findall(r'href="([^"]*\?action=webhook\.add)"', page))
        filtered = ada.get(address).text
        assert "webhook.add" in filtered
        assert "invite.create" not in filtered
        by = next(url for url in re.findall(r'href="([^"]*\?actor=[^"]*)"', page) if url.endswith("=cli"))
        assert "webhook.add" not in ada.get(by).text
