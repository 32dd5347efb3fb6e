"""Full text search: words and phrases, pages, ranks, projects apart, and the index behind it."""

from collections.abc import Callable

import pytest

from bus import limits
from bus.coordination import posts, task_queries, tasks, text_search
from bus.db import Connection
from bus.errors import InvalidArgument
from bus.operations import project_purge
from bus.tenancy.projects import Project
from tests.factories import Agent, make_agent


def _write(conn: Connection, agent: Agent, *bodies: str) -> list[int]:
    return [posts.create(conn, agent.ctx, body, to_lane="core").post_id for body in bodies]


def _index_all(conn: Connection, project_id: int) -> None:
    while text_search.index_batch(conn, project_id):
        pass


def _leave(_conn: Connection, _project_id: int) -> None:
    pass


@pytest.fixture(params=[_leave, _index_all], ids=["before the job", "after the job"])
def index(request: pytest.FixtureRequest) -> Callable[[Connection, int], None]:
    """Searches find the same before and after the job has indexed the texts."""
    prepare: Callable[[Connection, int], None] = request.param
    return prepare


_BODIES = [
    "The Migration of ORDERS is ready.",
    "orders: no migration needed",
    "See src/orders/total.py and PR-142",
    "Über ADR-0049 — naïve café",
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("migration", [1, 0]),
        ("MIGRATION orders", [1, 0]),
        ('"migration of orders"', [0]),
        ('"of migration"', []),
        ("total.py", [2]),
        ("src/orders", [2]),
        ("142", [2]),
        ("PR-142", [2]),
        ("pr 142", [2]),
        ("ADR-0049", [3]),
        ("über CAFÉ", [3]),
        ("mig", []),
        ("migration -orders", [1, 0]),
        ('orders "', [2, 1, 0]),
        ("orders & migration | !x <-> :*", []),
    ],
)
def test_posts_are_found_by_their_words(
    conn: Connection, project: Project, ada: Agent, index: Callable[..., None], text: str, expected: list[int]
) -> None:
    ids = _write(conn, ada, *_BODIES)
    index(conn, project.id)
    page = posts.list_posts(conn, ada.ctx, text=text)
    assert [ids.index(post.post_id) for post in page.posts] == expected


def test_subject_and_reference_are_searched_too(conn: Connection, ada: Agent) -> None:
    post = posts.create(conn, ada.ctx, "x", to_lane="core", subject="Lease conflicts", ref="https://x.org/pull/7")
    for text in ("conflicts", "pull/7"):
        assert [match.post_id for match in posts.list_posts(conn, ada.ctx, text=text).posts] == [post.post_id]


def test_tasks_are_found_and_an_edit_is_found_at_once(
    conn: Connection, project: Project, ada: Agent, index: Callable[..., None]
) -> None:
    first = tasks.create(conn, ada.ctx, "Round the totals", detail="half up").task_id
    second = tasks.create(conn, ada.ctx, "Round trip").task_id
    index(conn, project.id)
    assert [task.task_id for task in task_queries.list_tasks(conn, ada.ctx, text="round").tasks] == [second, first]
    assert [task.task_id for task in task_queries.list_tasks(conn, ada.ctx, text="half up").tasks] == [first]
    conn.execute("UPDATE task SET title = 'Truncate' WHERE project_id = %s AND id = %s", (project.id, first))
    text_search.update_task(conn, project.id, first)
    assert [task.task_id for task in task_queries.list_tasks(conn, ada.ctx, text="truncate").tasks] == [first]
    assert [task.task_id for task in task_queries.list_tasks(conn, ada.ctx, text="round").tasks] == [second]
    assert task_queries.list_tasks(conn, ada.ctx, text="round", status="done").tasks == []


def test_another_project_is_not_searched(
    conn: Connection, project: Project, ada: Agent, index: Callable[..., None]
) -> None:
    other = make_agent(conn)
    _write(conn, other, "a secret of another project", f" {project.id}post8:0 {other.ctx.project_id}post8:0")
    _write(conn, ada, "nothing")
    for project_id in (project.id, other.ctx.project_id):
        index(conn, project_id)
    assert posts.list_posts(conn, ada.ctx, text="secret").posts == []
    assert posts.list_posts(conn, ada.ctx, text=f"{other.ctx.project_id}post8:0").posts == []
    assert text_search.rank(conn, project.id, "post", "secret", limit=5) == []
    assert len(text_search.rank(conn, other.ctx.project_id, "post", "secret", limit=5)) == 1


def test_pages_follow_each_other_across_ranges(conn: Connection, project: Project, ada: Agent) -> None:
    ids = _write(conn, ada, *(f"needle {number}" for number in range(8)))
    # Posts far apart, as in a long ledger.
    for position, post_id in reversed(list(enumerate(ids))):
        far = {0: 3, 1: 20_000, 2: 600_000, 3: 600_001}.get(position, 2_000_000 + 600 * position)
        conn.execute("UPDATE post SET id = %s WHERE project_id = %s AND id = %s", (far, project.id, post_id))
    _index_all(conn, project.id)
    _write(conn, ada, "the clock is behind, so this number is lower and its text is not indexed")
    listed: list[int] = []
    before = None
    while True:
        page = posts.list_posts(conn, ada.ctx, text="needle", before=before, limit=3)
        listed += [post.post_id for post in page.posts]
        before = page.next_before
        if before is None:
            break
    assert listed == [2_004_200, 2_003_600, 2_003_000, 2_002_400, 600_001, 600_000, 20_000, 3]


def test_filters_choose_among_the_newest_matches(conn: Connection, ada: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_search, "MAX_CANDIDATES", 2)
    tagged = posts.create(conn, ada.ctx, "needle", to_lane="core", tag="t").post_id
    _write(conn, ada, "needle", "needle")
    first = posts.list_posts(conn, ada.ctx, text="needle", tag="t")
    assert first.posts == []
    assert first.next_before is not None
    second = posts.list_posts(conn, ada.ctx, text="needle", tag="t", before=first.next_before)
    assert [post.post_id for post in second.posts] == [tagged]
    assert second.next_before is None
    task = tasks.create(conn, ada.ctx, "needle", lane="a").task_id
    for _ in range(2):
        tasks.create(conn, ada.ctx, "needle", lane="b")
    page = task_queries.list_tasks(conn, ada.ctx, text="needle", lane="a")
    assert (page.tasks, page.next_before) == ([], task + 1)
    page = task_queries.list_tasks(conn, ada.ctx, text="needle", lane="a", before=task + 1)
    assert [match.task_id for match in page.tasks] == [task]


def test_a_phrase_ranks_above_all_words_and_all_above_some(
    conn: Connection, project: Project, ada: Agent, index: Callable[..., None]
) -> None:
    some, everything, phrase = _write(
        conn, ada, "lock lock lock lock", "the table needs a long lock", "a lock table statement"
    )
    _write(conn, ada, "unrelated")
    index(conn, project.id)
    ranked = text_search.rank(conn, project.id, "post", "lock table", limit=10)
    assert [match.id for match in ranked] == [phrase, everything, some]
    assert [match.id for match in text_search.rank(conn, project.id, "post", "lock table", limit=1)] == [phrase]


@pytest.mark.parametrize(
    "text",
    ["", " ", "!", "\\", '"""', "a" * (limits.MAX_SEARCH_LENGTH + 1), "a\x00b", "\ud800"],
)
def test_a_text_without_a_word_is_refused(conn: Connection, ada: Agent, text: str) -> None:
    for call in (posts.list_posts, task_queries.list_tasks):
        with pytest.raises(InvalidArgument):
            call(conn, ada.ctx, text=text)


@pytest.mark.parametrize("text", ["' OR 1", "a\\'b", "%s", "a:*", "((a", "a" * 200, "é\u0301", "日本語", "🙂 a", '"a'])
def test_any_other_text_gets_an_answer(conn: Connection, project: Project, ada: Agent, text: str) -> None:
    _write(conn, ada, text)
    _index_all(conn, project.id)
    assert len(posts.list_posts(conn, ada.ctx, text=text).posts) == 1


def test_a_project_that_is_being_deleted_is_not_indexed(conn: Connection, project: Project, ada: Agent) -> None:
    _write(conn, ada, "one")
    assert project_purge.begin_purge(conn, project.id, actor="cli")
    assert text_search.index_batch(conn, project.id) == 0


def test_the_job_indexes_each_text_once(conn: Connection, project: Project, ada: Agent) -> None:
    assert project.id not in text_search.list_projects_behind(conn, project.id - 1)
    _write(conn, ada, "one", "w " * 4000, "x" * 8000)
    tasks.create(conn, ada.ctx, "task")
    assert project.id in text_search.list_projects_behind(conn, project.id - 1)
    assert text_search.index_batch(conn, project.id) == 3
    assert text_search.index_batch(conn, project.id) == 0
    assert project.id not in text_search.list_projects_behind(conn, project.id - 1)
