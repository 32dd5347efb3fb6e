"""Search: the page, its results, and the palette."""

import re

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import expect

from bus.coordination import posts, sequences, tasks, text_search
from bus.db import Database
from tests.factories import make_agent, make_owner, make_project
from tests.webapp.browser import open_page
from tests.webapp.live_server import running_live_server
from tests.webapp.sample_data import SampleData, project_path
from tests.webapp.scenario_steps import sign_in
from tests.webapp.web_client import Browser
from webapp.excerpts import build_excerpt


def _search(browser: Browser, text: str, **query: str) -> str:
    answer = browser.get("/search", query_string={"q": text, **query})
    assert answer.status_code == 200
    return answer.text


def _results(page: str) -> list[tuple[str, str]]:
    """Title and address of each result."""
    links = re.findall(r'<li><a href="([^"]*)">.*?<span class="result-title">(.*?)</span>', page, re.S)
    return [(" ".join(re.sub("<.*?>", "", title).split()), url) for url, title in links]


def test_everything_is_found_by_its_name_or_number(ada: Browser, sample: SampleData) -> None:
    inside = project_path(sample).rstrip("/")
    post, task = sample.route_values["post_id"], sample.route_values["task_id"]
    for text, result in {
        "ADR-0042": ("ADR-0042 number", f"{inside}/refs/?ref=ADR-0042"),
        "adr-42": ("ADR-0042 number", f"{inside}/refs/?ref=ADR-0042"),
        "adr 42": ("ADR-0042 number", f"{inside}/refs/?ref=ADR-0042"),
        "PR 118": ("PR 118 ref", f"{inside}/refs/?ref=PR+118"),
        "PR 117": ("PR 117 ref", f"{inside}/refs/?ref=PR+117"),
        f"task {task}": (f"Review the migration task #{task}", f"{inside}/tasks/{task}"),
        f"#{post}": (f"Migration 42 is ready #{post}", f"{inside}/handoffs/{post}"),
        "#1": ("register #1", f"{inside}/ledger/1"),
        "apol": ("apollo project", f"{inside}/board/"),
        "API-AGENT": ("api-agent participant", f"/admin/participants/{sample.route_values['participant_id'] - 1}"),
        "migrat": ("migration sequence", f"{inside}/ledger/?sequence=migration"),
        "new proj": ("New project", "/admin/projects/new"),
    }.items():
        assert result in _results(_search(ada, text)), text
    assert ("New handoff in apollo", f"{inside}/handoffs/new") in _results(
        _search(ada, "handoff", project=str(sample.full_project.id))
    )


@pytest.mark.parametrize("is_indexed", [False, True])
def test_texts_are_found_with_the_words_marked(
    ada: Browser, sample: SampleData, db: Database, is_indexed: bool
) -> None:
    if is_indexed:
        with db.transaction() as conn:
            while text_search.index_batch(conn, sample.full_project.id):
                pass
    page = _search(ada, "frozen deploys")
    assert "<mark>Deploys</mark> are <mark>frozen</mark> on Friday." in page
    assert [title.partition(" #")[0] for title, _ in _results(page)][:1] == ["Freeze"]
    page = _search(ada, "column")
    assert any(title.startswith("Drop the old column") for title, _ in _results(page))


def test_other_owners_are_not_searched(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        owner = make_owner(conn, "mallory")
        project = make_project(conn, "zebra", owner)
        agent = make_agent(conn, project, "zebra-agent")
        posts.create(conn, agent.ctx, "zebra crossing", to_lane="core", ref="zebra-1")
        tasks.create(conn, agent.ctx, "zebra task")
        sequences.seed(conn, agent.ctx, "zebra", 5, prefix="zebra-")
        text_search.index_batch(conn, project.id)
    for text in ("zebra", "zebra-1", "zebra-5", "task 1"):
        for scope in ({}, {"in": str(project.id)}, {"project": str(project.id)}):
            page = _search(ada, text, **scope)
            assert f"/admin/projects/{project.id}/" not in page
            assert "crossing" not in page
            assert "in zebra" not in page
    # A project alone is searched only by its owner.
    nothing = _search(ada, "Freeze", **{"in": str(project.id)})
    assert "Nothing matches" in nothing
    assert 'href="/search?q=Freeze">Search all projects' in nothing
    assert "Freeze" in _search(ada, "frozen", **{"in": str(sample.full_project.id)})


@pytest.mark.parametrize(
    "text",
    [" ", "!", '"', "a\x00b", "x" * 500, "' OR 1=1 --", "a & b | !c", "%", "_", "\\", "<script>", "\u202e", "1" * 30,
     "task", "#", "#99999999999999999", "ADR-", "🙂", "-- \t\n"],
)  # fmt: skip
def test_any_text_gets_an_answer(ada: Browser, text: str) -> None:
    page = _search(ada, text)
    assert "<script>" not in page.replace("<script src", "")
    for bad in ("project", "in"):
        assert ada.get("/search", query_string={"q": "a", bad: text}).status_code in (200, 302)


def test_a_cut_list_says_so(ada: Browser, sample: SampleData, db: Database) -> None:
    assert "There may be more." not in _search(ada, "kiwi")
    with db.transaction() as conn:
        agent = make_agent(conn, sample.full_project, "worker")
        for number in range(8):
            posts.create(conn, agent.ctx, f"kiwi {number}", to_lane="review")
    assert "There may be more." in _search(ada, "kiwi")


def test_a_visitor_signs_in_first(stranger: Browser) -> None:
    assert stranger.get("/search?q=x").location == "/sign-in?next=/search?q%3Dx"


@pytest.mark.parametrize(
    ("text", "query", "excerpt"),
    [
        ("short text", "text", "short [text]"),
        ("Two\n\nlines", "lines", "Two [lines]"),
        ("no match here", "other", "no match here"),
        ("a " * 100 + "needle " + "b " * 100, "needle", "… " + "a " * 25 + "[needle]" + " b" * 52 + " …"),
        ("x" * 300, "y", "x" * 160 + " …"),
        ("word " * 40, "y", "word " * 31 + "word …"),
        ("", "y", ""),
        ("a", "!", "a"),
    ],
)
def test_an_excerpt_is_cut_around_the_first_word(text: str, query: str, excerpt: str) -> None:
    parts = build_excerpt(text, query)
    assert "".join(f"[{part.text}]" if part.is_match else part.text for part in parts) == excerpt


def test_the_palette_opens_by_keyboard_and_leads_to_a_result(
    chromium: Chromium, database_url: str, db: Database, sample: SampleData
) -> None:
    with running_live_server(database_url) as url, open_page(chromium) as page:
        sign_in(page, url, db, sample.owner)
        page.goto(f"{url}{project_path(sample, 'handoffs/')}")
        page.keyboard.press("Control+k")
        field = page.get_by_role("searchbox", name="Search")
        expect(field).to_be_focused()
        expect(page.get_by_role("link", name="New handoff in apollo")).to_be_visible()
        page.keyboard.type("frozen")
        expect(page.locator(".palette mark")).to_have_text("frozen")
        page.keyboard.press("ArrowDown")
        expect(page.locator(".palette .results a").first).to_be_focused()
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Enter")
        page.wait_for_url("**/handoffs/*")
        expect(page.get_by_role("heading", name="Freeze")).to_be_visible()
        page.keyboard.press("/")
        expect(field).to_be_focused()
        page.keyboard.press("Escape")
        expect(field).to_be_hidden()
