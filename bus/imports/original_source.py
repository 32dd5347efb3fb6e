"""Reads the database of the original, in one snapshot that nothing changes."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import psycopg
from psycopg.rows import class_row

from bus.errors import BusError
from bus.imports import original_rows as rows
from bus.rules.enums import EVENT_TYPES

T = TypeVar("T")
# The columns that an import reads; other columns and tables are not looked at.
_COLUMNS = {
    "owners": "id email username is_operator plan suspended_at token_balance delinquent_since created_at",
    "owner_identities": "owner_id provider provider_subject email created_at",
    "projects": "id owner_id slug name liveness_window_sec created_at",
    "participants": "id owner_id name kind created_at",
    "participations": "id participant_id project_id lane is_admin created_at",
    "tokens": "participation_id token_hash label created_at revoked_at",
    "sequences": "project_id name current prefix pad",
    "presence": "participation_id project_id lane status registered_at last_seen",
    "events": "id project_id ts participation_id actor_name type payload",
    "posts": "id project_id event_id from_participation_id from_actor_name to_lane to_participation_id subject body ref"
    " tag created_at",
    "post_acks": "post_id participation_id actor_name acked_at",
    "leases": "id project_id surface participation_id actor_name note acquired_at expires_at released_at",
    "tasks": "id project_id title detail lane owner_participation_id owner_name status created_by_id created_at"
    " updated_at",
    "task_blockers": "task_id blocked_on_task_id reason created_at resolved_at",
    "actor_cursors": "participation_id project_id last_event_id",
    "join_codes": "code project_id intended_name kind lane is_admin max_uses uses expires_at revoked_at",
    "invites": "token_hash project_id role_is_admin intended_name lane kind target_email state expires_at",
}
# In the order of their times, so that the numbers of the ledger rise with them: rows of the original may be committed
# in another order than that of their ids. A post without an event, or the second one of an event, counts as an event.
_LEDGER_SQL = """
    WITH anchored AS (
        SELECT p.*, CASE WHEN e.id IS NOT NULL AND row_number() OVER (PARTITION BY p.event_id ORDER BY p.id) = 1
                         THEN e.id END AS anchor
        FROM posts p LEFT JOIN events e ON e.id = p.event_id AND e.project_id = p.project_id AND e.type = 'post'
        WHERE p.project_id = %(project)s)
    SELECT e.ts, e.id AS event_id, e.participation_id, e.actor_name, e.type, e.payload, a.id AS post_id, a.to_lane,
           a.to_participation_id, a.subject, a.body, a.ref, a.tag
    FROM events e LEFT JOIN anchored a ON a.anchor = e.id
    WHERE e.project_id = %(project)s AND e.type = ANY (%(types)s)
    UNION ALL
    SELECT a.created_at, NULL, a.from_participation_id, a.from_actor_name, 'post', NULL, a.id, a.to_lane,
           a.to_participation_id, a.subject, a.body, a.ref, a.tag
    FROM anchored a WHERE a.anchor IS NULL
    ORDER BY ts, event_id, post_id OFFSET %(offset)s
"""
_COUNTS_SQL = """
    SELECT (SELECT count(*) FROM events e WHERE e.project_id = %(project)s AND e.type = ANY (%(types)s)),
           (SELECT count(*) FROM posts p WHERE p.project_id = %(project)s),
           (SELECT count(*) FROM tasks t WHERE t.project_id = %(project)s),
           (SELECT count(*) FROM sequences s WHERE s.project_id = %(project)s),
           (SELECT count(*) FROM tokens t JOIN participations p ON p.id = t.participation_id
            WHERE p.project_id = %(project)s)
"""
# Names of participations that were deleted, which only events, posts and acks still bear.
_FORMER_NAMES_SQL = """
    SELECT DISTINCT former.name FROM (
        SELECT e.actor_name AS name, e.participation_id AS id FROM events e WHERE e.project_id = %(project)s
        UNION ALL
        SELECT p.from_actor_name, p.from_participation_id FROM posts p WHERE p.project_id = %(project)s
        UNION ALL
        SELECT a.actor_name, a.participation_id FROM post_acks a JOIN posts p ON p.id = a.post_id
        WHERE p.project_id = %(project)s
        UNION ALL
        SELECT t.owner_name, t.owner_participation_id FROM tasks t
        WHERE t.project_id = %(project)s AND t.owner_name IS NOT NULL
    ) AS former
    LEFT JOIN participations known ON known.id = former.id AND known.project_id = %(project)s
    WHERE known.id IS NULL ORDER BY 1
"""
_INVITES_SQL = """
    SELECT j.code AS secret, false AS is_hash, j.intended_name, j.kind, j.lane, j.is_admin, j.max_uses, j.uses,
           j.expires_at, NULL AS target_email
    FROM join_codes j WHERE j.project_id = %(project)s AND j.revoked_at IS NULL AND j.uses < j.max_uses
      AND (j.expires_at IS NULL OR j.expires_at > now())
    UNION ALL
    SELECT i.token_hash, true, i.intended_name, i.kind, i.lane, i.role_is_admin, 1, 0, i.expires_at, i.target_email
    FROM invites i WHERE i.project_id = %(project)s AND i.state = 'pending'
      AND (i.expires_at IS NULL OR i.expires_at > now())
"""
_FINDINGS_SQL = {
    "the same number was claimed more than once; the claims are kept": """
        SELECT format('%%s %%s', e.payload ->> 'sequence', e.payload ->> 'number') FROM events e
        WHERE e.project_id = %(project)s AND e.type = 'claim'
        GROUP BY e.payload ->> 'sequence', e.payload ->> 'number' HAVING count(*) > 1 ORDER BY 1""",
    "the same post twice within a minute; both are kept": """
        SELECT format('post %%s', b.id) FROM (
            SELECT p.id, p.created_at - lag(p.created_at) OVER (
                PARTITION BY p.from_participation_id, p.to_lane, p.to_participation_id, p.subject, md5(p.body)
                ORDER BY p.created_at, p.id) AS pause
            FROM posts p WHERE p.project_id = %(project)s) AS b WHERE b.pause < interval '1 minute' ORDER BY b.id""",
    "committed out of the order of their ids; events are numbered by time": """
        SELECT format('event %%s', x.id) FROM (
            SELECT e.id, e.ts < max(e.ts) OVER (ORDER BY e.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS late
            FROM events e WHERE e.project_id = %(project)s) AS x WHERE x.late ORDER BY x.id""",
    "events of a type that this ledger does not have are left out": """
        SELECT e.type FROM events e WHERE e.project_id = %(project)s AND NOT e.type = ANY (%(types)s)""",
    "a sequence at its last number, from which nothing can be claimed": """
        SELECT s.name FROM sequences s WHERE s.project_id = %(project)s AND s.current >= 9007199254740991""",
}


class OriginalSource:
    """A database of the original.

    Args:
        conn: begins a transaction that reads one snapshot; it must not be in one.
    """

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        conn.read_only = True
        self._check_columns()

    def _check_columns(self) -> None:
        known = self._conn.execute(
            "SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
            " WHERE c.oid = ANY (SELECT to_regclass(name) FROM unnest(%s::text[]) AS name) AND a.attnum > 0"
            " AND NOT a.attisdropped",
            (list(_COLUMNS),),
        ).fetchall()
        missing = sorted({(table, column) for table in _COLUMNS for column in _COLUMNS[table].split()} - set(known))
        if missing:
            table, column = missing[0]
            raise BusError(
                "invalid_argument",
                f"This is not a database of the original LLM Bus 2.0: the column {table}.{column} is missing"
                f"{f', and {len(missing) - 1} others' if len(missing) > 1 else ''}. Check the database's name in the"
                " URL, and migrate an older original first.",
            )

    def list_owners(self) -> list[rows.OwnerRow]:
        """Return all owners by id."""
        return self._select(rows.OwnerRow, "owners", "ORDER BY id")

    def list_identities(self) -> list[rows.IdentityRow]:
        """Return the accounts of all owners at providers."""
        return self._select(rows.IdentityRow, "owner_identities", "ORDER BY owner_id, provider")

    def list_projects(self) -> list[rows.ProjectRow]:
        """Return all projects by id."""
        return self._select(rows.ProjectRow, "projects", "ORDER BY id")

    def list_participants(self) -> list[rows.ParticipantRow]:
        """Return the participants of all owners by id."""
        return self._select(rows.ParticipantRow, "participants", "ORDER BY id")

    def list_participations(self, project_id: int) -> list[rows.ParticipationRow]:
        """Return the participations of a project by id."""
        return self._select(rows.ParticipationRow, "participations", "WHERE project_id = %s ORDER BY id", project_id)

    def list_former_names(self, project_id: int) -> list[str | None]:
        """Return the names under which removed participants acted in a project."""
        return [name for (name,) in self._conn.execute(_FORMER_NAMES_SQL, {"project": project_id})]

    def list_tokens(self, project_id: int) -> list[rows.TokenRow]:
        """Return the tokens of a project, revoked ones included."""
        return self._select(
            rows.TokenRow,
            "tokens",
            "WHERE participation_id IN (SELECT id FROM participations WHERE project_id = %s) ORDER BY id",
            project_id,
        )

    def list_sequences(self, project_id: int) -> list[rows.SequenceRow]:
        """Return the sequences of a project."""
        return self._select(rows.SequenceRow, "sequences", "WHERE project_id = %s ORDER BY name", project_id)

    def list_presence(self, project_id: int) -> list[rows.PresenceRow]:
        """Return the presence of a project's participations."""
        return self._select(rows.PresenceRow, "presence", "WHERE project_id = %s", project_id)

    def list_live_leases(self, project_id: int) -> list[rows.LeaseRow]:
        """Return the leases of a project that have not ended."""
        condition = "WHERE project_id = %s AND released_at IS NULL AND expires_at > clock_timestamp() ORDER BY id"
        return self._select(rows.LeaseRow, "leases", condition, project_id)

    def list_tasks(self, project_id: int) -> list[rows.TaskRow]:
        """Return the tasks of a project by id."""
        return self._select(rows.TaskRow, "tasks", "WHERE project_id = %s ORDER BY id", project_id)

    def list_blockers(self, project_id: int) -> list[rows.BlockerRow]:
        """Return the blockers of a project's tasks."""
        condition = "WHERE task_id IN (SELECT id FROM tasks WHERE project_id = %s) ORDER BY task_id, created_at"
        return self._select(rows.BlockerRow, "task_blockers", condition, project_id)

    def list_cursors(self, project_id: int) -> list[rows.CursorRow]:
        """Return how far the participations of a project have read."""
        return self._select(rows.CursorRow, "actor_cursors", "WHERE project_id = %s", project_id)

    def list_open_invites(self, project_id: int) -> list[rows.InviteRow]:
        """Return the join codes and invites of a project that can still be used."""
        with self._conn.cursor(row_factory=class_row(rows.InviteRow)) as cursor:
            return cursor.execute(_INVITES_SQL, {"project": project_id}).fetchall()

    def read_ledger(self, project_id: int, offset: int, batch_size: int) -> Iterator[list[rows.LedgerRow]]:
        """Yield the ledger of a project in batches, in the order of the import.

        Args:
            offset: how many rows to skip.
        """
        with self._conn.cursor(name="ledger", row_factory=class_row(rows.LedgerRow)) as cursor:
            cursor.execute(_LEDGER_SQL, {"project": project_id, "offset": offset, "types": list(EVENT_TYPES)})
            while batch := cursor.fetchmany(batch_size):
                yield batch

    def list_acks(self, post_ids: Sequence[int]) -> list[rows.AckRow]:
        """Return the acks of posts, oldest first."""
        condition = "WHERE post_id = ANY (%s) ORDER BY acked_at"
        return self._select(rows.AckRow, "post_acks", condition, list(post_ids))

    def read_ackers(self, project_id: int) -> Iterator[tuple[int, int | None, str | None]]:
        """Yield post, participation and name of each ack in a project."""
        with self._conn.cursor(name="ackers") as cursor:
            yield from cursor.execute(
                "SELECT a.post_id, a.participation_id, a.actor_name FROM post_acks a JOIN posts p ON p.id = a.post_id"
                " WHERE p.project_id = %s",
                (project_id,),
            )

    def count(self, project_id: int) -> tuple[int, ...]:
        """Count events, posts, tasks, sequences and tokens of a project."""
        row = self._conn.execute(_COUNTS_SQL, {"project": project_id, "types": list(EVENT_TYPES)}).fetchone()
        assert row is not None
        return tuple(row)

    def find_damage(self, project_id: int) -> Iterator[tuple[str, int, str]]:
        """Yield known kinds of damage in a project: the problem, how often, and an example."""
        for problem, query in _FINDINGS_SQL.items():
            params = {"project": project_id, "types": list(EVENT_TYPES)}
            cases = self._conn.execute(query.encode(), params).fetchall()
            if cases:
                yield problem, len(cases), str(cases[0][0])

    def _select(self, cls: type[T], table: str, condition: str, *params: Any) -> list[T]:
        columns = ", ".join(field.name for field in fields(cls))  # type: ignore[arg-type]
        with self._conn.cursor(row_factory=class_row(cls)) as cursor:
            return cursor.execute(f"SELECT {columns} FROM {table} {condition}".encode(), params).fetchall()
