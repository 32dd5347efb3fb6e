"""Import of what is in force in a project of the original: sequences, leases, presence, cursors, tokens and invites."""

from bisect import bisect_left
from itertools import accumulate

import sqlalchemy as sa
from psycopg.types.json import Jsonb

from bus import limits
from bus.db import Connection
from bus.errors import InvalidArgument
from bus.imports import original_rows as rows
from bus.imports.findings import Findings
from bus.imports.original_source import OriginalSource
from bus.imports.original_tenancy import ImportedProject
from bus.imports.original_values import clean_label, clip
from bus.rules import surfaces, token_format, validation
from bus.rules.enums import PARTICIPANT_KINDS
from bus.tenancy import participation_lanes
from bus.tenancy.tables import invite, token

_ID_BATCH_SIZE = 50_000


def import_sequences(conn: Connection, source: OriginalSource, project: ImportedProject, findings: Findings) -> None:
    """Create the sequences of a project at their present numbers.

    Where the ledger leads to another number, a `seed` event of the owner records the present one, since the ledger and
    the sequences must agree.
    """
    for row in source.list_sequences(project.original_id):
        name = _choose_sequence_name(row.name, findings)
        current = min(max(row.current, 0), limits.MAX_INTEGER)
        prefix = clip(row.prefix, limits.MAX_PREFIX_LENGTH, findings, "a prefix") or ""
        pad = min(max(row.pad or 0, 0), limits.MAX_PAD)
        created = conn.execute(
            "INSERT INTO sequence (project_id, name, current, prefix, pad, claimed, claimed_as, claimed_by, claimed_at)"
            " SELECT %(project)s, %(name)s, %(current)s, %(prefix)s, %(pad)s, last.number, last.formatted, last.actor,"
            "  last.at FROM (SELECT 1) AS one LEFT JOIN LATERAL ("
            "   SELECT (e.payload ->> 'number')::bigint AS number, e.actor, e.at,"
            "    coalesce(e.payload ->> 'formatted', e.payload ->> 'number') AS formatted"
            "   FROM event e WHERE e.project_id = %(project)s AND e.type = 'claim'"
            "    AND e.payload ->> 'sequence' = %(original)s AND (e.payload ->> 'number')::bigint IS NOT NULL"
            "   ORDER BY e.seq DESC LIMIT 1) AS last ON true ON CONFLICT DO NOTHING",
            {
                "project": project.id, "name": name, "original": row.name, "current": current, "prefix": prefix,
                "pad": pad,
            },
        )  # fmt: skip
        if not created:
            findings.add("a sequence whose name is not allowed here and taken is left out", row.name)
            findings.left_out["sequences"] += 1
            continue
        (reached,) = conn.fetch_one(
            "SELECT coalesce((SELECT coalesce((e.payload ->> 'number')::bigint, (e.payload ->> 'current')::bigint)"
            " FROM event e WHERE e.project_id = %s AND e.type IN ('claim', 'seed') AND e.payload ->> 'sequence' = %s"
            " ORDER BY e.seq DESC LIMIT 1), 0)",
            (project.id, name),
        )
        if reached != current:
            findings.add("a sequence whose ledger ends elsewhere; a seed event records its number", row.name)
            payload = {"sequence": name, "current": current, "prefix": prefix, "pad": pad}
            _append(conn, project, project.owner_participation, project.owner.handle, "seed", payload)


def _choose_sequence_name(original: str, findings: Findings) -> str:
    try:
        return validation.sequence_name(original)
    except InvalidArgument:
        name = "".join(char if char in "abcdefghijklmnopqrstuvwxyz0123456789_-" else "-" for char in original.lower())
        findings.add("a sequence's name with characters that are not allowed is changed", f"{original} to {name[:64]}")
        return name[:64] or "unnamed"


def _append(
    conn: Connection, project: ImportedProject, participation_id: int, actor: str, event_type: str, payload: object
) -> int:
    """Append an event to the ledger of a project that is closed to all others, and return its number."""
    (seq,) = conn.fetch_one(
        "WITH clock AS (UPDATE project_clock SET last_seq = last_seq + 1,"
        "  last_at = greatest(date_trunc('milliseconds', clock_timestamp()), last_at)"
        "  WHERE project_id = %(project)s RETURNING last_seq, last_at)"
        " INSERT INTO event (project_id, seq, at, participation_id, actor, type, payload)"
        " SELECT %(project)s, c.last_seq, c.last_at, %(participation)s, %(actor)s, %(type)s, %(payload)s FROM clock c"
        " RETURNING seq",
        {
            "project": project.id, "participation": participation_id, "actor": actor, "type": event_type,
            "payload": Jsonb(payload),
        },
    )  # fmt: skip
    return int(seq)


def import_leases(conn: Connection, source: OriginalSource, project: ImportedProject, findings: Findings) -> None:
    """Take the live leases of a project again, each with an event and a fence of its own, until their old expiry."""
    held: set[tuple[int, str]] = set()
    for row in source.list_live_leases(project.original_id):
        holder = project.participations.get(row.participation_id or 0)
        if holder is None:
            findings.add("leases of a participant that was deleted are left out", row.surface)
            continue
        try:
            surface = surfaces.normalise(row.surface)
        except InvalidArgument as error:
            findings.add(f"a lease on a surface that is not one path is left out: {error.message}", row.surface)
            continue
        if (holder, surface) in held:
            findings.add("a second lease of one participant on the same surface is left out", row.surface)
            continue
        held.add((holder, surface))
        (actor,) = conn.fetch_one("SELECT bus_participation_name(%s)", (holder,))
        (seconds,) = conn.fetch_one(
            "SELECT greatest(ceil(extract(epoch FROM %s - clock_timestamp())), 1)::integer", (row.expires_at,)
        )
        (last_seq,) = conn.fetch_one("SELECT last_seq FROM project_clock WHERE project_id = %s", (project.id,))
        payload = {
            "surface": surface, "ttl_seconds": seconds, "mode": "exclusive", "fence": last_seq + 1, "contended": 0,
            "original_id": row.id,
        }  # fmt: skip
        fence = _append(conn, project, holder, actor, "lease", payload)
        conn.execute(
            "INSERT INTO lease (project_id, id, surface, prefix, mode, participation_id, actor, note, fence,"
            " acquired_at, expires_at) VALUES (%s, %s, %s, %s, 'exclusive', %s, %s, %s, %s, %s, %s)",
            (
                project.id,
                fence,
                surface,
                surfaces.literal_prefix(surface),
                holder,
                actor,
                clip(row.note, limits.MAX_NOTE_LENGTH, findings, "the note of a lease"),
                fence,
                row.acquired_at,
                row.expires_at,
            ),
        )


def import_presence(conn: Connection, source: OriginalSource, project: ImportedProject, findings: Findings) -> None:
    """Insert lanes, statuses and the times when participants were last seen; all count as away until they call."""
    for row in source.list_presence(project.original_id):
        participation_id = project.participations.get(row.participation_id)
        if participation_id is not None:
            conn.execute(
                "INSERT INTO presence (project_id, participation_id, lane, status, registered_at, last_seen, lapsed_at)"
                " VALUES (%s, %s, %s, %s, %s, %s, clock_timestamp())",
                (
                    project.id,
                    participation_id,
                    clip(row.lane, 64, findings, "a lane"),
                    clip(row.status, limits.MAX_STATUS_LENGTH, findings, "a status") or "",
                    row.registered_at,
                    row.last_seen,
                ),
            )


def import_cursors(conn: Connection, source: OriginalSource, project: ImportedProject) -> None:
    """Set the cursors before the first event that a participation has not read; a few may be read again.

    All acks of before count as received.
    """
    (last_seq,) = conn.fetch_one("SELECT last_seq FROM project_clock WHERE project_id = %s", (project.id,))
    cursors = {
        project.participations[row.participation_id]: row.last_event_id
        for row in source.list_cursors(project.original_id)
        if row.participation_id in project.participations
    }
    positions = _find_first_unread(conn, project.id, sorted(set(cursors.values())), last_seq + 1)
    for participation_id in project.participations.values():
        last_event_id = cursors.get(participation_id)
        if last_event_id is not None:
            conn.execute(
                "INSERT INTO cursor (project_id, participation_id, seq) VALUES (%s, %s, %s)",
                (project.id, participation_id, positions[last_event_id] - 1),
            )
        conn.execute(
            "INSERT INTO ack_cursor (project_id, participation_id, seq) VALUES (%s, %s, %s)",
            (project.id, participation_id, last_seq),
        )


def _find_first_unread(conn: Connection, project_id: int, last_ids: list[int], end: int) -> dict[int, int]:
    """Return, for each former event id, the lowest number here of an event with a higher id; `end` if there is none."""
    # By the position of the last id that is lower than the event's, so that one pass over the ids is enough.
    lowest = [end] * (len(last_ids) + 1)
    after = ""
    while last_ids:
        batch = conn.fetch_all(
            "SELECT original_id, number FROM imported_id WHERE project_id = %s AND kind = 'event' AND original_id > %s"
            " ORDER BY original_id LIMIT %s",
            (project_id, after, _ID_BATCH_SIZE),
        )
        for original_id, number in batch:
            position = bisect_left(last_ids, int(original_id))
            lowest[position] = min(lowest[position], number)
        if len(batch) < _ID_BATCH_SIZE:
            break
        after = batch[-1][0]
    from_the_end = list(accumulate(reversed(lowest), min))
    return {last_id: from_the_end[len(last_ids) - 1 - index] for index, last_id in enumerate(last_ids)}


def import_tokens(conn: Connection, source: OriginalSource, project: ImportedProject, findings: Findings) -> None:
    """Insert the hashes of all tokens, revoked ones included, and deliver the unacked posts of their holders' lanes."""
    for row in source.list_tokens(project.original_id):
        try:
            sha256 = bytes.fromhex(row.token_hash)
        except ValueError:
            sha256 = b""
        if len(sha256) != 32 or row.participation_id not in project.participations:
            findings.add("tokens whose hash is no SHA-256 are left out", row.token_hash[:8])
            findings.left_out["tokens"] += 1
            continue
        conn.execute(
            sa.insert(token).values(
                participation_id=project.participations[row.participation_id],
                sha256=sha256,
                hint=token_format.legacy_display_hint(sha256),
                label=clip(row.label, 64, findings, "the label of a token") or "",
                created_at=row.created_at,
                revoked_at=row.revoked_at,
                legacy=True,
            )
        )
    for participation_id in project.participations.values():
        participation_lanes.join_current_lane(conn, project.id, participation_id)
    # Else they would count as posts without a recipient.
    conn.execute(
        "UPDATE post o SET recipients = (SELECT count(*) FROM delivery d WHERE d.project_id = o.project_id"
        "  AND d.post_id = o.id AND d.addressed)"
        " WHERE o.project_id = %s AND o.to_lane IS NOT NULL AND o.acked_at IS NULL",
        (project.id,),
    )


def import_invites(conn: Connection, source: OriginalSource, project: ImportedProject, findings: Findings) -> None:
    """Insert the open join codes and invites."""
    for row in source.list_open_invites(project.original_id):
        sha256 = _invite_fingerprint(row)
        if sha256 is None:
            findings.add("invites whose code or hash has another form are left out", row.secret[:8])
            continue
        name = clean_label(row.intended_name) if row.intended_name else None
        uses = 1 if name else min(max(row.max_uses, 1), limits.MAX_INVITE_USES)
        conn.execute(
            sa.insert(invite).values(
                project_id=project.id,
                sha256=sha256,
                hint=f"legacy {sha256.hex()[:6]}…",
                participant_name=name,
                kind=row.kind if row.kind in PARTICIPANT_KINDS else "agent",
                lane=clip(row.lane, 64, findings, "a lane"),
                is_admin=row.is_admin,
                uses=uses,
                used=min(row.uses, uses - 1),
                created_by=project.owner.handle,
                email=row.target_email or None,
                expires_at=row.expires_at
                or sa.func.clock_timestamp() + sa.text(f"interval '{limits.MAX_INVITE_HOURS} hours'"),
            )
        )


def _invite_fingerprint(row: rows.InviteRow) -> bytes | None:
    if not row.is_hash:
        return token_format.fingerprint(row.secret) if token_format.is_legacy_invite_code(row.secret) else None
    try:
        sha256 = bytes.fromhex(row.secret)
    except ValueError:
        return None
    return sha256 if len(sha256) == 32 else None
