"""The pages of the admin: what an owner sees and does there, and what the engine then says."""

import csv
import io
import json
import re

import pytest
from werkzeug.test import TestResponse

from bus import audit, grants, invites, leases, members, notices, participants, posts, projects, task_lists, tokens
from bus.db import Database
from bus.errors import NotAuthenticated
from bus.projects import ProjectSettings
from bus.rules.tokens import fingerprint as hashed
from tests.checks import check_ledger, fingerprint
from tests.factories import make_agent, make_owner
from tests.webapp.visits import Browser, Web
from tests.webapp.worlds import World, fill

_TOKEN = re.compile(r"lbus_[0-9A-Za-z]{49}")


@pytest.fixture
def world(db: Database) -> World:
    with db.write() as conn:
        return fill(conn)


@pytest.fixture
def ada(site: Web, db: Database, world: World) -> Browser:
    with db.call() as conn:
        return site.browser().sign_in(conn, world.owner)


def _inside(world: World, rest: str = "") -> str:
    return f"/admin/projects/{world.full.id}/{rest}"


def _works(db: Database, token: str) -> bool:
    with db.call() as conn:
        ctx = tokens.resolve(conn, hashed(token))
        assert ctx is not None
        try:
            participants.whoami(conn, ctx)
        except NotAuthenticated:
            return False
        return True


def _shown_once(browser: Browser, answer: TestResponse) -> str:
    """Follow a POST that mints to its card; returns the token, after checking that it is shown this once."""
    assert answer.status_code == 303, answer.text
    assert answer.location.startswith("/admin/cards/")
    head = browser._open("HEAD", answer.location)
    assert head.status_code == 404
    card = browser.get(answer.location)
    assert card.status_code == 200
    assert card.headers["Cache-Control"] == "no-store"
    again = browser.get(answer.location)
    assert again.status_code == 404
    assert "shown once" in again.text
    (token,) = set(_TOKEN.findall(card.text))
    assert token not in again.text
    return token


def test_the_first_project_leads_to_the_first_agent(site: Web, db: Database) -> None:
    with db.write() as conn:
        owner = make_owner(conn, "grace")
    with db.call() as conn:
        browser = site.browser().sign_in(conn, owner)
    assert "Start with a project" in browser.get("/admin/").text
    browser.get("/admin/projects/new")
    assert "is needed" in browser.submit("", name="  ").text
    overview = browser.follow(browser.submit("", name="apollo"))
    assert "Let the first agent in" in overview.text
    (project_id,) = (one.id for one in _projects(db, owner.id))
    browser.get(f"/admin/projects/{project_id}/members/new")
    token = _shown_once(browser, browser.submit("", name="agent-one"))
    overview = browser.get(f"/admin/projects/{project_id}/")
    assert "Waiting for the first agent" in overview.text
    assert "agent-one" in overview.text
    assert _works(db, token)
    with db.write() as conn:
        ctx = tokens.resolve(conn, hashed(token))
        assert ctx is not None
        posts.create(conn, ctx, "hello", to_actor="grace")
        conn.maybe(
            "INSERT INTO presence (project_id, participation_id, last_seen) VALUES (%s, %s, clock_timestamp())"
            " RETURNING 1",
            (project_id, ctx.participation_id),
        )
    overview = browser.get(f"/admin/projects/{project_id}/")
    assert "Waiting for the first agent" not in overview.text
    assert "handed over" in overview.text


def _projects(db: Database, owner_id: int) -> list[projects.Project]:
    with db.call() as conn:
        return projects.list_(conn, owner_id=owner_id)


def test_the_dashboard_names_what_needs_attention(ada: Browser, world: World) -> None:
    page = ada.get("/admin/").text
    for said in ("Who owns the invoices now?", "Review the migration", "src/orders/total.py", "ends in 2 days"):
        assert said.replace("'", "&#39;") in re.sub(r"<time[^>]*>|</time>", "", page)
    assert "apollo" in page
    assert "an older one" not in page
    assert "an older one" in ada.get("/admin/projects/").text


def test_a_living_part_is_asked_for_alone(ada: Browser, world: World) -> None:
    for path in ("/admin/", *(_inside(world, rest) for rest in ("", "members/", "handoffs/", "tasks/", "ledger/"))):
        part = ada.get(path, headers={"X-Part": "1"})
        assert "<html" not in part.text
        same = ada.get(path, headers={"X-Part": "1", "If-None-Match": part.headers["ETag"]})
        assert same.status_code == 304


def test_projects_are_renamed_set_archived_and_opened_again(ada: Browser, world: World, db: Database) -> None:
    settings = _inside(world, "settings/")
    ada.get(settings)
    assert ada.submit(f"{settings}name", name="website").status_code == 400
    ada.get(settings)
    ada.submit(f"{settings}name", name="artemis")
    ada.get(settings)
    assert ada.submit(settings, presence_minutes="0").status_code == 400
    ada.get(settings)
    wanted = {"presence_minutes": "5", "stall_minutes": "60", "gone_minutes": "120", "pause_minutes": "10"}
    ada.submit(settings, **wanted, escalation_email="oncall@example.org")
    with db.call() as conn:
        assert projects.get(conn, world.full.id).name == "artemis"
        assert projects.get_settings(conn, world.full.id) == ProjectSettings(300, 3600, 7200, 600, "oncall@example.org")
    ada.get(settings)
    ada.submit(f"{settings}archive")
    assert "This project is archived" in ada.get(_inside(world)).text
    refused = ada.post(
        _inside(world, "handoffs/new"), data={"csrf_token": ada.token(), "to_actor": "carol", "body": "x"}
    )
    assert refused.status_code == 400
    assert "archived" in refused.text
    ada.get(settings)
    ada.submit(f"{settings}reopen")
    with db.call() as conn:
        assert projects.get(conn, world.full.id).archived_at is None


def test_a_webhook_shows_its_secret_once_and_is_removed(ada: Browser, world: World, db: Database) -> None:
    settings = _inside(world, "settings/")
    ada.get(settings)
    assert ada.submit(f"{settings}webhooks", url="ftp://example.org").status_code == 400
    ada.get(settings)
    card = ada.get(ada.submit(f"{settings}webhooks", url="https://example.org/hook").location).text
    (secret,) = set(re.findall(r"whsec_[A-Za-z0-9+/=]{20,}", card))
    page = ada.get(settings).text
    assert "https://example.org/hook" in page
    assert secret not in page
    with db.call() as conn:
        made = notices.list_webhooks(conn, world.owner.id, project_id=world.full.id)[-1]
    assert made.secret == secret
    ada.submit(f"{settings}webhooks/{made.id}/remove")
    assert "https://example.org/hook" not in ada.get(settings).text


def test_a_project_is_deleted_only_by_typing_its_name(ada: Browser, world: World, db: Database) -> None:
    settings = _inside(world, "settings/")
    page = ada.get(settings).text
    assert "events of the ledger" in page
    ada.submit(f"{settings}delete", confirm="apolo")
    with db.call() as conn:
        before = projects.get(conn, world.full.id)
    assert before.archived_at is None
    ada.get(settings)
    assert ada.submit(f"{settings}delete", confirm="apollo").location == "/admin/projects/"
    assert ada.get(_inside(world)).status_code == 404
    with db.call() as conn:
        assert conn.one("SELECT count(*) FROM event WHERE project_id = %s", (world.full.id,)) == (0,)
        assert "project.purge" in {act.action for act in audit.list_(conn, world.owner.id)}


def test_a_token_is_rotated_added_and_revoked(ada: Browser, world: World, db: Database) -> None:
    with db.write() as conn:
        agent = make_agent(conn, world.full, "rotated")
    page = _inside(world, f"members/{agent.ctx.participation_id}")
    ada.get(page)
    second = _shown_once(ada, ada.submit(f"{page}/tokens", label="laptop", lives="7"))
    assert _works(db, agent.token)
    assert _works(db, second)
    ada.get(page)
    third = _shown_once(ada, ada.submit(f"{page}/rotate"))
    assert [_works(db, token) for token in (agent.token, second, third)] == [False, False, True]
    shown = ada.get(page).text
    assert "laptop" in shown
    with db.call() as conn:
        newest = tokens.list_(conn, agent.ctx.participation_id)[0]
    ada.submit(f"{page}/tokens/{newest.id}/revoke")
    assert not _works(db, third)
    ada.get(page)
    fourth = _shown_once(ada, ada.submit(f"{page}/rotate"))
    ada.get(page)
    ada.submit(f"{page}/revoke")
    assert not _works(db, fourth)


def test_a_card_opens_in_the_browser_that_made_it_alone(site: Web, ada: Browser, world: World, db: Database) -> None:
    with db.call() as conn:
        other = site.browser().sign_in(conn, world.owner)
    ada.get(_inside(world, "members/new"))
    address = ada.submit("", name="secret-agent").location
    assert other.get(address).status_code == 404
    card = ada.get(address)
    assert card.status_code == 200
    (token,) = set(_TOKEN.findall(card.text))
    with db.call() as conn:
        stored = conn.all("SELECT lookup || box FROM sealed")
    assert all(token.encode() not in row[0] for row in stored)


def test_the_card_holds_a_line_for_every_client_and_a_file(ada: Browser, world: World) -> None:
    ada.get(_inside(world, "members/new"))
    card = ada.get(ada.submit("", name="secret-agent").location).text
    for client in ("Claude Code", "Codex", "Cursor", "Gemini CLI", "VS Code", "OpenCode", "Windsurf"):
        assert client in card
    assert 'download="mcp.json" href="data:application/json' in card


def test_terms_change_and_a_grant_ends(ada: Browser, world: World, db: Database) -> None:
    with db.write() as conn:
        agent = make_agent(conn, world.full, "termed")
    page = _inside(world, f"members/{agent.ctx.participation_id}")
    ada.get(page)
    ada.submit(f"{page}/terms", lane="docs", is_admin="y")
    with db.call() as conn:
        seen = grants.get(conn, world.owner.id, world.full.id, agent.ctx.participation_id)
    assert (seen.granted_lane, seen.is_admin) == ("docs", True)
    ada.get(page)
    ada.submit(f"{page}/remove")
    assert ada.get(page).status_code == 404
    assert not _works(db, agent.token)


def test_a_name_that_is_taken_is_said_on_the_form(ada: Browser, world: World) -> None:
    ada.get(_inside(world, "members/new"))
    for name, said in (("api-agent", "in this project already"), ("retired", "not handed out again"), ("ada", "owner")):
        answer = ada.submit("", name=name)
        assert answer.status_code == 400
        assert said in answer.text


def test_the_owner_hands_over_answers_and_acks(ada: Browser, world: World, db: Database) -> None:
    post_id = world.values["post_id"]
    thread = ada.get(_inside(world, f"handoffs/{post_id}"))
    assert "Leave the index in until Monday" in thread.text
    ada.submit(_inside(world, f"handoffs/{post_id}/ack"))
    ada.get(_inside(world, f"handoffs/{post_id}"))
    answer = ada.submit(
        _inside(world, f"handoffs/{post_id}/reply"), body="Merged. <b>Thanks</b>", to_actor="ada/api-agent"
    )
    made = int(answer.location.partition("#")[0].rpartition("/")[2])
    shown = ada.get(answer.location.partition("#")[0]).text
    assert "Merged. &lt;b&gt;Thanks&lt;/b&gt;" in shown
    ada.get(_inside(world, "handoffs/new"))
    refused = ada.submit("", to_actor="nobody", body="hello")
    assert refused.status_code == 400
    assert "Nobody called" in refused.text
    ada.get(_inside(world, "handoffs/new"))
    assert ada.submit("", to_lane="core", body="hello", ack_within="3600").status_code == 303
    with db.call() as conn:
        alice = members.get(conn, world.full.id, "api-agent")
        rows = conn.all("SELECT actor, reply_to FROM post WHERE project_id = %s AND id = %s", (world.full.id, made))
        assert rows == [("ada", post_id)]
        assert conn.one(
            "SELECT acked_at IS NOT NULL FROM delivery WHERE project_id = %s AND post_id = %s"
            " AND participation_id = (SELECT participation_id FROM post WHERE project_id = %s AND id = %s)",
            (world.full.id, post_id, world.full.id, made),
        ) == (True,)
        assert alice.label == "api-agent"
        check_ledger(conn, world.full.id)
    assert ada.get(_inside(world, "handoffs/999999")).status_code == 404


def test_handoffs_are_filtered(ada: Browser, world: World) -> None:
    assert "Migration 42" in ada.get(_inside(world, "handoffs/?ref=PR+118")).text
    assert "Migration 42" not in ada.get(_inside(world, "handoffs/?tag=ops")).text
    assert "No post is like that" in ada.get(_inside(world, "handoffs/?to_lane=nowhere")).text
    assert "Freeze" in ada.get(_inside(world, "handoffs/?unacked=y")).text
    bad = ada.get(_inside(world, "handoffs/"), query_string={"tag": "a\u202eb"})
    assert (bad.status_code, "cannot be seen" in bad.text) == (200, True)


def test_what_the_owner_is_shown_counts_as_surfaced(ada: Browser, world: World, db: Database) -> None:
    question = (
        "SELECT d.surfaced_at IS NOT NULL FROM delivery d JOIN participation p ON p.id = d.participation_id"
        " JOIN participant pt ON pt.id = p.participant_id WHERE d.project_id = %s AND d.post_id = %s AND pt.label = ''"
    )
    params = (world.full.id, world.values["post_id"])
    with db.call() as conn:
        assert conn.one(question, params) == (False,)
    ada.get(_inside(world, "handoffs/"))
    with db.call() as conn:
        assert conn.one(question, params) == (True,)


def test_the_owner_makes_assigns_and_resolves_tasks(ada: Browser, world: World, db: Database) -> None:
    ada.get(_inside(world, "tasks/new"))
    assert ada.submit("", title="").status_code == 400
    ada.get(_inside(world, "tasks/new"))
    assert ada.submit("", title="x", blocked_on="seven").status_code == 400
    ada.get(_inside(world, "tasks/new"))
    made = ada.submit("", title="Approve it", owner="ada", blocked_on="#1", priority="0")
    task_id = int(made.location.rpartition("/")[2])
    shown = ada.get(made.location).text
    assert "Approve it" in shown
    ada.submit(f"{made.location}/resolve")
    ada.get(made.location)
    assert ada.submit(f"{made.location}/assign", owner="nobody-here").status_code == 400
    ada.get(made.location)
    ada.submit(f"{made.location}/assign", owner="carol")
    with db.call() as conn:
        listed = task_lists.list_(conn, _owner_ctx(conn, world), owner="carol").tasks
    assert task_id in {task.task_id for task in listed}
    assert "Approve it" in ada.get(_inside(world, "tasks/?owner=carol")).text
    assert "Approve it" not in ada.get(_inside(world, "tasks/?status=done")).text
    assert ada.get(_inside(world, "tasks/424242")).status_code == 404


def _owner_ctx(conn, world):  # type: ignore[no-untyped-def]
    from bus import humans

    return humans.enter(conn, world.owner.id, world.full.id)


def test_a_stuck_lease_is_released_from_the_page(ada: Browser, world: World, db: Database) -> None:
    page = ada.get(_inside(world, "leases/")).text
    assert "contended" in page
    fence = world.values["fence"]
    ada.submit(_inside(world, f"leases/{fence}/release"))
    with db.call() as conn:
        held = leases.list_holders(conn, _owner_ctx(conn, world)).leases
    assert fence not in {one.fence for one in held}
    again = ada.follow(ada.post(_inside(world, f"leases/{fence}/release"), data={"csrf_token": ada.token()}))
    assert "had ended already" in again.text
    overlapping = ada.get(_inside(world, "leases/?surface=src")).text
    assert "src/orders/**" in overlapping
    assert 'role="alert"' in ada.get(_inside(world, "leases/?surface=../x")).text


def test_the_ledger_is_filtered_linked_to_and_paged(ada: Browser, world: World, db: Database) -> None:
    with db.call() as conn:
        (last,) = conn.one("SELECT last_seq FROM project_clock WHERE project_id = %s", (world.full.id,))
    page = ada.get(_inside(world, "ledger/")).text
    assert f">#{last}</a>" in page
    claims = ada.get(_inside(world, "ledger/?type=claim&sequence=adr")).text
    assert "ADR-0042" in claims
    assert "shipped" not in claims
    for query in ("actor=nobody-here", "number=x", "since=yesterday"):
        answer = ada.get(_inside(world, f"ledger/?{query}"))
        assert answer.status_code == 200
        assert 'role="alert"' in answer.text
    event = ada.get(_inside(world, f"ledger/{world.values['seq']}"))
    assert "&#34;PR 118&#34;" in event.text
    for nowhere in ("0", str(last + 1), str(2**53), str(2**62)):
        assert ada.get(_inside(world, f"ledger/{nowhere}")).status_code == 404
    assert ada.get(_inside(world, f"ledger/?before={2**60}")).status_code == 200


def test_the_ledger_is_exported_whole_and_filtered(ada: Browser, world: World, db: Database) -> None:
    with db.write() as conn:
        agent = make_agent(conn, world.full, "=cmd")
        posts.create(conn, agent.ctx, "hello", to_lane="core", subject='a "quoted", thing\nand a line')
        for number in range(1200):
            conn.maybe(
                "SELECT bus_append(%s, %s, %s, 'seed', jsonb_build_object('sequence', 's', 'current', %s::integer))",
                (world.full.id, agent.ctx.participation_id, agent.actor, number),
            )
        (last,) = conn.one("SELECT last_seq FROM project_clock WHERE project_id = %s", (world.full.id,))
    lines = ada.get(_inside(world, "ledger/export.jsonl")).text.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["id"] for event in events] == list(range(last, 0, -1))
    answer = ada.get(_inside(world, "ledger/export.csv?type=post"))
    assert answer.mimetype == "text/csv"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert {row["type"] for row in rows} == {"post"}
    assert json.loads(rows[0]["payload"])["subject"] == 'a "quoted", thing\nand a line'
    assert ada.get(_inside(world, "ledger/export.csv?number=x")).status_code == 400


def test_an_invite_is_made_shown_once_listed_and_revoked(ada: Browser, world: World, db: Database) -> None:
    ada.get(_inside(world, "invites/new"))
    assert ada.submit("", participant_name="api-agent").status_code == 400
    ada.get(_inside(world, "invites/new"))
    made = ada.submit("", participant_name="fresh", lane="docs", ttl_hours="1")
    card = ada.get(made.location)
    (code,) = set(re.findall(r"inv_[0-9a-z]{26}", card.text))
    assert "--fail-with-body" in card.text
    assert ada.get(made.location).status_code == 404
    with db.call() as conn:
        newest = invites.list_(conn, world.full.id)[0]
    assert (newest.participant_name, newest.lane, newest.created_by) == ("fresh", "docs", "ada")
    listed = ada.get(_inside(world, "invites/")).text
    assert code not in listed
    for said in ("open", "exhausted", "revoked", "eve@example.org", "newcomer"):
        assert said in listed
    ada.submit(_inside(world, f"invites/{newest.id}/revoke"))
    with db.call() as conn:
        assert invites.list_(conn, world.full.id)[0].state == "revoked"


def test_an_invite_for_a_known_participant_is_made_from_the_form(ada: Browser, world: World, db: Database) -> None:
    ada.get(_inside(world, "invites/new"))
    assert ada.submit("", participant_id="nonsense").status_code == 404
    ada.get(_inside(world, "invites/new"))
    ada.submit("", participant_id=str(world.values["participant_id"]))
    with db.call() as conn:
        assert invites.list_(conn, world.full.id)[0].participant_id == world.values["participant_id"]


def test_participants_are_made_renamed_and_removed(ada: Browser, world: World, db: Database) -> None:
    ada.get("/admin/participants/new")
    page = ada.submit("", name="temp", kind="human").location
    ada.get(page)
    assert ada.submit(f"{page}/rename", name="retired").status_code == 400
    ada.get(page)
    ada.submit(f"{page}/rename", name="permanent")
    assert "permanent" in ada.get(page).text
    ada.submit(f"{page}/remove", confirm="temp")
    assert "Removed" not in ada.get(page).text
    ada.submit(f"{page}/remove", confirm="permanent")
    shown = ada.get(page).text
    assert "is not handed out again" in shown
    assert "permanent" in ada.get("/admin/participants/").text


def test_removing_a_participant_ends_it_in_every_project(ada: Browser, world: World, db: Database) -> None:
    with db.write() as conn:
        agent = make_agent(conn, world.full, "double", lane="core")
        other = make_agent(conn, world.empty, "double")
    page = f"/admin/participants/{agent.ctx.participant_id}"
    ada.get(page)
    ada.submit(f"{page}/remove", confirm="double")
    assert [_works(db, one.token) for one in (agent, other)] == [False, False]
    with db.call() as conn:
        assert members.find(conn, world.empty.id, "double") is None
        actions = [act.action for act in audit.list_(conn, world.owner.id)][:3]
    assert sorted(actions) == ["participant.remove", "participation.remove", "participation.remove"]


def test_the_audit_tells_what_was_done_here(ada: Browser, world: World) -> None:
    ada.get(_inside(world, "settings/"))
    ada.submit(_inside(world, "settings/name"), name="artemis")
    for page in ("/admin/audit/", _inside(world, "audit/")):
        shown = ada.get(page).text
        assert "project.rename" in shown
        assert "before: apollo" in shown


def test_lists_page_by_key(ada: Browser, world: World, db: Database) -> None:
    with db.write() as conn:
        for number in range(55):
            invites.create_for(conn, world.empty.id, actor="ada")
            projects.add(conn, world.owner.id, f"p-{number:02}")
            make_agent(conn, world.empty, f"agent-{number:02}")
    for path in (
        f"/admin/projects/{world.empty.id}/invites/",
        "/admin/projects/",
        f"/admin/projects/{world.empty.id}/members/",
        "/admin/participants/",
        "/admin/audit/",
        f"/admin/projects/{world.empty.id}/audit/",
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


def test_a_name_says_no_more_than_a_name(ada: Browser, world: World, db: Database) -> None:
    """What others chose to be called, and what they wrote, is text on every page."""
    nasty = "<img src=x>'\"&lt;{{7*7}}"
    with db.write() as conn:
        agent = make_agent(conn, world.full, nasty, lane=nasty)
        posts.create(conn, agent.ctx, nasty, to_lane=nasty, subject=nasty, ref=nasty, tag=nasty)
        leases.acquire(conn, agent.ctx, "src/<b>")
        projects.rename(conn, world.full.id, nasty, actor="ada")
    for rest in ("", "members/", "handoffs/", "leases/", "ledger/", "settings/", "audit/", "members/new"):
        page = ada.get(_inside(world, rest)).text
        assert "<img src=x>" not in page
        assert "<b>" not in page
        assert "49" not in re.findall(r"\{\{7\*7\}\}|49(?=')", page)
    card = ada.get(_rotated(ada, world, agent.ctx.participation_id)).text
    assert "<img src=x>" not in card


def _rotated(browser: Browser, world: World, participation_id: int) -> str:
    page = _inside(world, f"members/{participation_id}")
    browser.get(page)
    return str(browser.submit(f"{page}/rotate").location)


def test_two_owners_do_not_see_each_other(site: Web, ada: Browser, world: World, db: Database) -> None:
    """Every address with an id, with the ids of another owner's things, inside one's own project and in theirs."""
    with db.write() as conn:
        mine = fill(conn, "eve")
    with db.call() as conn:
        eve = site.browser().sign_in(conn, mine.owner)
    token = eve.token()
    for page in ("/admin/", "/admin/projects/", "/admin/participants/", "/admin/audit/"):
        assert "ada/" not in eve.get(page).text
    with db.call() as conn:
        before = fingerprint(conn)
    seen = 0
    with site.app.test_request_context():
        rules = [rule for rule in site.app.url_map.iter_rules() if rule.rule.startswith("/admin")]
    for rule in rules:
        if not rule.arguments or "key" in rule.arguments:
            continue
        inner = rule.arguments - {"project_id"}
        for values in (
            world.values,
            # Ids that are numbered by project exist in every project, so only those of rows of their own are foreign.
            {**world.values, "project_id": mine.full.id}
            if inner & {"participation_id", "participant_id", "invite_id", "webhook_id"}
            else world.values,
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
    with db.call() as conn:
        after = fingerprint(conn)
    assert {name for name in before if before[name] != after[name]} <= {"session"}
