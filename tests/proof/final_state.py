"""The state of the bus after a run, read from PostgreSQL."""

from dataclasses import dataclass
from typing import Any

from bus.db import Database


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """A row of the ledger; `at` in seconds."""

    seq: int
    at: float
    actor: str
    type: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoredPost:
    """A post and, for each recipient's actor, whether it has acknowledged."""

    id: int
    actor: str
    body: str
    deliveries: dict[str, bool]


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A task."""

    id: int
    title: str
    status: str


@dataclass(frozen=True, slots=True)
class FinalState:
    """The state of one project.

    Attributes:
        lanes: the lane of each actor, constant during the run.
        sequences: the present number of each sequence.
    """

    project: str
    lanes: dict[str, str]
    events: list[LedgerEvent]
    posts: list[StoredPost]
    tasks: list[StoredTask]
    sequences: dict[str, int]


def read_final_state(database: Database, project: str, project_id: int, lanes: dict[str, str]) -> FinalState:
    """Read the state of a project in one snapshot."""
    with database.transaction() as conn:
        conn.raw.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        events = [
            LedgerEvent(*row)
            for row in conn.fetch_all(
                "SELECT seq, extract(epoch FROM at)::float8, actor, type, payload FROM event"
                " WHERE project_id = %s ORDER BY seq",
                (project_id,),
            )
        ]
        posts = [
            StoredPost(*row)
            for row in conn.fetch_all(
                "SELECT p.id, p.actor, p.body, coalesce((SELECT jsonb_object_agg(o.handle || '/' || pt.label,"
                "  d.acked_at IS NOT NULL) FROM delivery d JOIN participation n ON n.id = d.participation_id"
                "  JOIN participant pt ON pt.id = n.participant_id JOIN owner o ON o.id = pt.owner_id"
                "  WHERE d.project_id = p.project_id AND d.post_id = p.id AND d.addressed), '{}')"
                " FROM post p WHERE p.project_id = %s ORDER BY p.id",
                (project_id,),
            )
        ]
        tasks = [
            StoredTask(*row)
            for row in conn.fetch_all("SELECT id, title, status FROM task WHERE project_id = %s", (project_id,))
        ]
        sequences: dict[str, int] = dict(
            conn.fetch_all("SELECT name, current FROM sequence WHERE project_id = %s", (project_id,))
        )
    return FinalState(project, lanes, events, posts, tasks, sequences)
