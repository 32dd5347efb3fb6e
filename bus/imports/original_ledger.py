"""Import of the original's ledger: events in the order of their times, with posts and deliveries."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from bus import limits
from bus.db import Connection
from bus.imports import original_rows as rows
from bus.imports.findings import Findings
from bus.imports.former_ids import list_numbers, record_ids
from bus.imports.original_source import OriginalSource
from bus.imports.original_tenancy import ImportedProject
from bus.imports.original_values import clip, convert_payload, qualify, truncate_to_milliseconds

BATCH_SIZE = 2_000
# The lane of posts whose only recipient was deleted.
_LOST_LANE = "removed"


@dataclass(frozen=True, slots=True)
class _Event:
    seq: int
    at: datetime
    participation_id: int | None
    actor: str
    type: str
    payload: dict[str, Any]
    row: rows.LedgerRow


def load_post_numbers(conn: Connection, project_id: int) -> dict[int, int]:
    """Return the numbers here of the posts that earlier batches have imported, by their ids in the original."""
    return {int(original_id): number for original_id, number in list_numbers(conn, project_id, "post").items()}


def find_last_imported(conn: Connection, project_id: int) -> tuple[int | None, int | None] | None:
    """Return the ids in the original of the last event that was imported, and of its post; None before the first."""
    row = conn.fetch_one_or_none(
        "SELECT (e.payload ->> 'original_id')::bigint,"
        " CASE WHEN EXISTS (SELECT FROM post o WHERE o.project_id = e.project_id AND o.id = e.seq)"
        "  THEN (e.payload ->> 'original_post_id')::bigint END FROM event e"
        " WHERE e.project_id = %s ORDER BY e.seq DESC LIMIT 1",
        (project_id,),
    )
    return None if row is None else (row[0], row[1])


def import_batch(
    conn: Connection,
    source: OriginalSource,
    project: ImportedProject,
    batch: Sequence[rows.LedgerRow],
    post_numbers: dict[int, int],
    findings: Findings,
) -> None:
    """Append a batch of the original's ledger to that of the project; `post_numbers` gets its posts.

    Locks: the project clock.
    """
    conn.execute("SELECT bus_lock_clock(%s)", (project.id,))
    (last_seq,) = conn.fetch_one("SELECT last_seq FROM project_clock WHERE project_id = %s", (project.id,))
    name_rows = conn.fetch_all(
        "SELECT p.id, bus_participation_name(p.id) FROM participation p WHERE p.project_id = %s", (project.id,)
    )
    names: dict[int, str] = dict(name_rows)
    events: list[_Event] = []
    numbers = dict(post_numbers)
    for row in batch:
        seq = last_seq + len(events) + 1
        if row.post_id is not None:
            numbers[row.post_id] = seq
        events.append(_build_event(project, row, seq, numbers, names, findings))
    conn.execute(
        "INSERT INTO event (project_id, seq, at, participation_id, actor, type, payload)"
        " SELECT %s, e.* FROM unnest("
        "  %s::bigint[], %s::timestamptz[], %s::bigint[], %s::text[], %s::text[], %s::jsonb[]) AS e",
        (project.id, *_columns(events)),
    )
    record_ids(
        conn,
        project.id,
        "event",
        [(event.row.event_id, event.seq) for event in events if event.row.event_id is not None],
    )
    posts = [event for event in events if event.row.post_id is not None]
    if posts:
        record_ids(conn, project.id, "post", [(event.row.post_id, event.seq) for event in posts])
        _insert_posts(conn, source, project, posts, findings)
    conn.execute(
        "UPDATE project_clock SET last_seq = %s, last_at = greatest(last_at, %s) WHERE project_id = %s",
        (last_seq + len(events), events[-1].at, project.id),
    )
    conn.execute(
        "UPDATE meter_mark SET metered_seq = %(seq)s, started_seq = %(seq)s WHERE project_id = %(project)s",
        {"seq": last_seq + len(events), "project": project.id},
    )
    conn.execute("UPDATE project_import SET rows_read = rows_read + %s WHERE project_id = %s", (len(batch), project.id))
    post_numbers.update(numbers)


def _columns(events: Sequence[_Event]) -> tuple[list[Any], ...]:
    return (
        [event.seq for event in events],
        [event.at for event in events],
        [event.participation_id for event in events],
        [event.actor for event in events],
        [event.type for event in events],
        [Jsonb(event.payload) for event in events],
    )


def _build_event(
    project: ImportedProject,
    row: rows.LedgerRow,
    seq: int,
    post_numbers: dict[int, int],
    names: dict[int, str],
    findings: Findings,
) -> _Event:
    payload = convert_payload(row.payload, row.event_id)
    if row.type == "ack":
        post_id = payload.get("original_post_id")
        payload["post_id"] = post_numbers.get(post_id) if isinstance(post_id, int) else None
        if payload["post_id"] is None:
            findings.add("acks of posts that the original no longer has; the events are kept", f"event {row.event_id}")
    if row.type == "claim" and not isinstance(payload.get("number"), int):
        findings.add("claims without a number; the events are kept", f"event {row.event_id}")
    if row.post_id is not None:
        payload |= {
            "to_lane": clip(row.to_lane, 64, findings, "a lane"),
            "to_actor": names.get(project.participations.get(row.to_participation_id or 0, 0)),
            "subject": clip(row.subject, limits.MAX_SUBJECT_LENGTH, findings, "a subject"),
            "ref": clip(row.ref, limits.MAX_REF_LENGTH, findings, "a reference"),
            "tag": clip(row.tag, 64, findings, "a tag"),
            "original_post_id": row.post_id,
        }
        if payload["to_lane"] is None and payload["to_actor"] is None:
            findings.add(f"posts whose recipient was deleted are in the lane {_LOST_LANE!r}", f"post {row.post_id}")
            payload["to_lane"] = _LOST_LANE
        if row.event_id is None:
            findings.add("posts without an event of their own get one", f"post {row.post_id}")
    return _Event(
        seq=seq,
        at=truncate_to_milliseconds(row.ts),
        participation_id=project.find_participation(row.participation_id, row.actor_name),
        actor=qualify(row.actor_name, project.owner.handle),
        type=row.type,
        payload=payload,
        row=row,
    )


def _insert_posts(
    conn: Connection, source: OriginalSource, project: ImportedProject, posts: Sequence[_Event], findings: Findings
) -> None:
    acks: dict[int, dict[int, datetime]] = {event.row.post_id: {} for event in posts if event.row.post_id is not None}
    for ack in source.list_acks(list(acks)):
        acker = project.find_participation(ack.participation_id, ack.actor_name)
        if acker is None:
            findings.add("acks by a participant that is not known are left out", f"post {ack.post_id}")
        else:
            acks[ack.post_id].setdefault(acker, truncate_to_milliseconds(ack.acked_at))
    post_rows: list[tuple[Any, ...]] = []
    delivery_rows: list[tuple[Any, ...]] = []
    for event in posts:
        row = event.row
        assert row.post_id is not None
        ackers = acks[row.post_id]
        to_lane = event.payload["to_lane"]
        recipient = project.participations.get(row.to_participation_id or 0)
        is_lane_post = to_lane is not None
        deliveries = dict.fromkeys(ackers, is_lane_post) | ({} if recipient is None else {recipient: True})
        # A sender's ack of its own post confirms nothing, unless the post was addressed to the sender.
        confirming = [
            at
            for acker, at in ackers.items()
            if acker != event.participation_id or (acker == recipient and not is_lane_post)
        ]
        delivery_rows += (
            (participation_id, event.seq, is_addressed, ackers.get(participation_id))
            for participation_id, is_addressed in deliveries.items()
        )
        post_rows.append(
            (
                event.seq,
                event.participation_id or project.owner_participation,
                event.actor,
                to_lane,
                recipient,
                event.payload["to_actor"],
                event.payload["subject"],
                clip(row.body, limits.MAX_BODY_LENGTH, findings, "the text of a post") or "(empty)",
                event.payload["ref"],
                event.payload["tag"],
                sum(deliveries.values()),
                event.at,
                min(confirming, default=None),
            )
        )
    conn.execute(
        "INSERT INTO post (project_id, id, participation_id, actor, to_lane, to_participation_id, to_actor, subject,"
        " body, ref, tag, recipients, created_at, acked_at)"
        " SELECT %s, p.* FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::bigint[], %s::text[],"
        " %s::text[], %s::text[], %s::text[], %s::text[], %s::integer[], %s::timestamptz[], %s::timestamptz[]) AS p",
        (project.id, *(list(column) for column in zip(*post_rows, strict=True))),
    )
    if delivery_rows:
        conn.execute(
            "INSERT INTO delivery (project_id, participation_id, post_id, addressed, surfaced_at, acked_at)"
            " SELECT %s, d.participation_id, d.post_id, d.addressed, d.acked_at, d.acked_at"
            " FROM unnest(%s::bigint[], %s::bigint[], %s::boolean[], %s::timestamptz[])"
            " AS d (participation_id, post_id, addressed, acked_at)",
            (project.id, *(list(column) for column in zip(*delivery_rows, strict=True))),
        )
