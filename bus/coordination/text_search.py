"""Full text search over posts and tasks, in the words of bus/coordination/sql/text_search.sql.

A job reads texts into the index within seconds, outside of the transactions that write them, so a post costs the same
as without it. A search also reads the texts that the job has not read yet.
"""

from dataclasses import dataclass

from bus import limits
from bus.db import Connection
from bus.errors import InvalidArgument
from bus.rules import validation

BATCH_SIZE = 200
MAX_CANDIDATES = 1_000
"""The matches of a text among which further filters choose; a longer list continues on the next page."""

# By kind: the text, and the lock of its row. A post never changes; a task can be edited while it is indexed.
_TEXTS = {
    "post": ("concat_ws(' ', x.subject, x.ref, x.body)", ""),
    "task": ("concat_ws(' ', x.title, x.detail)", "FOR SHARE OF x"),
}
KINDS = tuple(_TEXTS)


@dataclass(frozen=True, slots=True)
class RankedMatch:
    """A post or a task that matches; a higher rank is better."""

    id: int
    rank: float


def validate(text: str) -> str:
    """Check the text of a search: 1 to 200 characters with at least one letter or digit."""
    text = validation.free_text(text, "text", limits.MAX_SEARCH_LENGTH)
    if not any(character.isalnum() for character in text):
        raise InvalidArgument('text must contain a word to search for, such as "migration".')
    return text


def find_ids(
    conn: Connection, project_id: int, kind: str, text: str, *, before: int | None = None, limit: int = MAX_CANDIDATES
) -> list[int]:
    """Return the ids of posts or tasks that contain all words of a text, newest first.

    Args:
        kind: one of KINDS.
        text: words; a part in double quotes is a phrase.
        before: only older ones.
    Raises:
        InvalidArgument: the text is too long or has no word.
    """
    rows = conn.fetch_all(
        "SELECT s.id FROM bus_search(%s, %s, bus_search_query(%s), %s, %s) AS s (id)",
        (project_id, kind, validate(text), before or limits.MAX_INTEGER, limit),
    )
    return [row_id for (row_id,) in rows]


def rank(conn: Connection, project_id: int, kind: str, text: str, *, limit: int) -> list[RankedMatch]:
    """Return the best matches of a text among the newest ones, best first.

    Args:
        kind: one of KINDS.
        limit: their largest number.
    """
    return conn.fetch_all_as(
        RankedMatch,
        "SELECT s.id, s.rank FROM bus_search_ranked(%s, %s, %s, %s) s",
        (project_id, kind, validate(text), limit),
    )


def _pending(kind: str) -> str:
    return (
        f"FROM {kind} x WHERE x.project_id = c.project_id AND x.id > coalesce((SELECT max(d.id)"
        f" FROM search_document d WHERE d.project_id = c.project_id AND d.kind = '{kind}'), 0)"
    )


def list_projects_behind(conn: Connection, after: int = 0) -> list[int]:
    """Return the ids of projects above `after` that have texts to index, in order; at most 100."""
    rows = conn.fetch_all(
        f"SELECT c.project_id FROM project_clock c WHERE c.project_id > %s AND (EXISTS (SELECT {_pending('post')})"
        f" OR EXISTS (SELECT {_pending('task')}))"
        # An import may write in another order than that of the ids.
        " AND NOT EXISTS (SELECT FROM project_import i WHERE i.project_id = c.project_id AND i.finished_at IS NULL)"
        " ORDER BY c.project_id LIMIT 100",
        (after,),
    )
    return [project_id for (project_id,) in rows]


def index_batch(conn: Connection, project_id: int) -> int:
    """Index the next texts of a project, at most BATCH_SIZE of each kind; return the larger number.

    Texts are indexed in the order of their ids, which is the order of their commits, so none is left out.

    Locks: the project's row, shared, so that no purge begins meanwhile; then the rows of the tasks, shared.
    """
    conn.enter_project(project_id)
    query = "SELECT 1 FROM project WHERE id = %s AND purging_at IS NULL FOR SHARE"
    if conn.fetch_one_or_none(query, (project_id,)) is None:
        return 0
    return max(
        conn.execute(
            f"INSERT INTO search_document (project_id, kind, id, words)"
            f" SELECT %(project)s, '{kind}', x.id, bus_search_document(%(project)s, '{kind}', x.id, {text})"
            f" FROM {kind} x WHERE x.project_id = %(project)s AND x.id > coalesce((SELECT max(d.id)"
            f"  FROM search_document d WHERE d.project_id = %(project)s AND d.kind = '{kind}'), 0)"
            f" ORDER BY x.id LIMIT %(limit)s {lock} ON CONFLICT DO NOTHING",
            {"project": project_id, "limit": BATCH_SIZE},
        )
        for kind, (text, lock) in _TEXTS.items()
    )


def update_task(conn: Connection, project_id: int, task_id: int) -> None:
    """Index a task again after its text has changed, if it was indexed before."""
    conn.execute(
        "UPDATE search_document d SET words = bus_search_document(t.project_id, 'task', t.id,"
        " concat_ws(' ', t.title, t.detail)) FROM task t"
        " WHERE d.project_id = %(project)s AND d.kind = 'task' AND d.id = %(task)s"
        " AND t.project_id = %(project)s AND t.id = %(task)s",
        {"project": project_id, "task": task_id},
    )
