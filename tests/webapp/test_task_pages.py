"""Tasks by people: starting, shipping, editing, and the history of a task."""

from playwright.sync_api import Browser as Chromium
from playwright.sync_api import expect

from bus.coordination import task_edits, task_queries, tasks
from bus.coordination.task_edits import TaskTexts
from bus.db import Database
from bus.tenancy import owner_participation
from tests.assertions import assert_ledger_consistent
from tests.factories import make_agent
from tests.webapp.browser import open_page
from tests.webapp.live_server import running_live_server
from tests.webapp.sample_data import SampleData, project_path
from tests.webapp.scenario_steps import sign_in
from tests.webapp.web_client import Browser


def _create(db: Database, sample: SampleData, *, owner: str | None = None) -> int:
    with db.transaction() as conn:
        agent = make_agent(conn, sample.full_project, "worker")
        return tasks.create(conn, agent.ctx, "Round the totals", lane="core", owner=owner).task_id


def _get(db: Database, sample: SampleData, task_id: int) -> task_queries.TaskDetail:
    with db.connection() as conn:
        ctx = owner_participation.get_or_create_owner_context(conn, sample.owner.id, sample.full_project.id)
        return task_queries.get_task(conn, ctx, task_id)


def test_a_person_starts_and_ships_a_task(ada: Browser, sample: SampleData, db: Database) -> None:
    task_id = _create(db, sample)
    page = project_path(sample, f"tasks/{task_id}")
    ada.get(page)
    ada.submit(f"{page}/start")
    assert (_get(db, sample, task_id).status, _get(db, sample, task_id).owner) == ("in_progress", "ada")
    shown = ada.get(page).text
    assert "Ship task" in shown
    assert "Start task" not in shown
    refused = ada.submit(f"{page}/ship", ref="a\u202eb")
    assert refused.status_code == 400
    assert "invisible" in refused.text
    ada.submit(f"{page}/ship", ref="PR-9")
    task = _get(db, sample, task_id)
    assert (task.status, task.ref) == ("done", "PR-9")
    shown = ada.get(page).text
    for missing in ("Edit task", "Ship task", "Start task"):
        assert missing not in shown
    history = shown.partition('id="history"')[2]
    assert [history.index(word) for word in ("shipped", "started", "created")] == sorted(
        history.index(word) for word in ("shipped", "started", "created")
    )
    assert "refs/?ref=PR-9" in shown
    with db.connection() as conn:
        assert_ledger_consistent(conn, sample.full_project.id)


def test_the_owner_may_act_on_the_task_of_an_agent(ada: Browser, sample: SampleData, db: Database) -> None:
    task_id = _create(db, sample, owner="worker")
    page = project_path(sample, f"tasks/{task_id}")
    ada.get(page)
    ada.submit(f"{page}/start")
    ada.get(page)
    ada.submit(f"{page}/ship", ref="")
    task = _get(db, sample, task_id)
    assert (task.status, task.ref, task.owner) == ("done", None, "ada/worker")


def test_a_blocked_task_offers_no_start_and_refuses_one(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        agent = make_agent(conn, sample.full_project)
        first = tasks.create(conn, agent.ctx, "first").task_id
        second = tasks.create(conn, agent.ctx, "second", blocked_on=[first]).task_id
    page = project_path(sample, f"tasks/{second}")
    assert "Start task" not in ada.get(page).text
    answer = ada.post(f"{page}/start", data={"csrf_token": ada.get_csrf_token()})
    assert "waits for 1 blocker" in ada.follow_redirects(answer).text
    assert _get(db, sample, second).status == "open"


def test_an_edit_changes_what_was_changed_and_is_recorded_once(ada: Browser, sample: SampleData, db: Database) -> None:
    task_id = _create(db, sample)
    page = project_path(sample, f"tasks/{task_id}")
    assert 'value="Round the totals"' in ada.get(f"{page}/edit").text
    assert ada.submit("", title="").status_code == 400
    assert ada.submit("", title="x" * 201).status_code == 400
    ada.get(f"{page}/edit")
    ada.submit("", title="Truncate the totals", detail="one\r\ntwo", priority="0")
    task = _get(db, sample, task_id)
    assert (task.title, task.detail, task.lane, task.priority) == ("Truncate the totals", "one\ntwo", "core", 0)
    ada.get(f"{page}/edit")
    ada.submit("")
    with db.connection() as conn:
        events = conn.fetch_all(
            "SELECT actor, payload FROM event WHERE project_id = %s AND type = 'task_edit'", (sample.full_project.id,)
        )
    payload = {"task_id": task_id, "title": "Truncate the totals", "detail": True, "priority": 0}
    assert events == [("ada", payload)]
    shown = " ".join(ada.get(page).text.split())
    assert "edited" in shown
    assert "Truncate the totals (detail, priority urgent)" in shown
    assert "Truncate the totals" in ada.get("/search?q=truncate").text


def test_an_edit_of_texts_that_were_changed_meanwhile_shows_both(
    ada: Browser, sample: SampleData, db: Database
) -> None:
    task_id = _create(db, sample)
    page = project_path(sample, f"tasks/{task_id}")
    ada.get(f"{page}/edit")
    with db.transaction() as conn:
        agent = make_agent(conn, sample.full_project, is_admin=True)
        task_edits.edit(conn, agent.ctx, task_id, TaskTexts("By an agent", "its reason", "core", 1))
    refused = ada.submit("", title="By Ada")
    assert refused.status_code == 409
    shown = " ".join(refused.text.split())
    assert "The task was changed after you opened it." in shown
    assert "By an agent" in shown
    assert "its reason" in shown
    assert 'value="By Ada"' in shown
    assert _get(db, sample, task_id).title == "By an agent"
    assert ada.submit("").status_code == 303
    assert _get(db, sample, task_id).title == "By Ada"


def test_a_task_that_is_not_there_has_no_pages(ada: Browser, sample: SampleData) -> None:
    token = ada.get_csrf_token()
    for path in ("", "/edit"):
        assert ada.get(project_path(sample, f"tasks/99999{path}")).status_code == 404
    for action, data in (("start", {}), ("ship", {}), ("edit", {"title": "x", "priority": "1"})):
        answer = ada.post(project_path(sample, f"tasks/99999/{action}"), data={"csrf_token": token, **data})
        assert answer.status_code == 404, action


def test_an_action_on_the_board_leads_back_to_it(ada: Browser, sample: SampleData, db: Database) -> None:
    task_id, board = _create(db, sample), project_path(sample, "tasks/?lane=core")
    page = project_path(sample, f"tasks/{task_id}")
    ada.get(page)
    assert ada.submit(f"{page}/start", next=board).location == board
    shown = ada.get(board).text
    assert f"Task #{task_id} started." in shown
    # A refusal is shown there too; an address of another site is not followed.
    ada.get(page)
    assert ada.post(f"{page}/start", data={"csrf_token": ada.get_csrf_token(), "next": board}).location == board
    assert "already in progress" in ada.get(board).text
    assert (
        ada.post(f"{page}/resolve", data={"csrf_token": ada.get_csrf_token(), "next": "//x.example"}).location == page
    )


def test_a_card_is_dragged_to_the_status_that_an_action_leads_to(
    chromium: Chromium, database_url: str, db: Database, sample: SampleData
) -> None:
    task_id = _create(db, sample)
    with running_live_server(database_url) as url, open_page(chromium) as page:
        sign_in(page, url, db, sample.owner)
        page.goto(f"{url}{project_path(sample, 'tasks/')}")
        card = page.locator(f"[data-key=t{task_id}]")
        column = {name: page.locator(f"[data-status={name}]") for name in ("in_progress", "done")}
        # An open task cannot be shipped.
        card.drag_to(column["done"])
        expect(page.locator("[data-status=open]").locator(card)).to_be_visible()
        card.drag_to(column["in_progress"])
        expect(page.get_by_text(f"Task #{task_id} started.")).to_be_visible()
        expect(column["in_progress"].locator(card)).to_be_visible()
        card.drag_to(column["done"])
        page.wait_for_url("**/tasks/*#ship")
        assert _get(db, sample, task_id).status == "in_progress"
