"""Participants: the agents and persons of an owner, their names and their kinds.

A participant exists independently of projects; bus/tenancy/participations.py adds it to them.
"""

from dataclasses import dataclass
from difflib import get_close_matches

import sqlalchemy as sa

from bus.ctx import Ctx
from bus.db import Connection, from_row
from bus.errors import BusError, InvalidArgument, NotFound
from bus.rules import validation
from bus.rules.enums import PARTICIPANT_KINDS
from bus.tenancy import audit, owners, token_store
from bus.tenancy.suspension import require_active_owner
from bus.tenancy.tables import owner, participant, participant_name


@dataclass(frozen=True, slots=True)
class Participant:
    """A participant of an owner; the label of the owner's own participant is empty."""

    id: int
    label: str
    kind: str


def create(conn: Connection, owner_id: int, name: str, *, kind: str | None = None, actor: str) -> int:
    """Create a participant that is in no project yet; return its id.

    Raises:
        BusError: `conflict` when another participant bears or bore the name.
        OwnerSuspended: the owner is suspended.
    Locks: the owner.
    """
    label = validation.label(name, "name")
    valid_kind = validate_kind(kind)
    handle = _lock_owner(conn, owner_id)
    require_active_owner(conn, owner_id)
    new_participant, is_new = get_or_create(conn, owner_id, label, valid_kind)
    if not is_new:
        raise BusError("conflict", f"You already have a participant {new_participant.label}.", reason="name_taken")
    audit.record(conn, owner_id, actor, "participant.create", f"{handle}/{label}", kind=valid_kind)
    return new_participant.id


def get_or_create(conn: Connection, owner_id: int, label: str, kind: str) -> tuple[Participant, bool]:
    """Return the owner's participant with this label, or create it. The caller has locked the owner.

    Args:
        kind: the kind of a new participant; an existing one keeps its own.
    Returns:
        The participant, and whether it is new.
    Raises:
        BusError: `conflict` when the label is or was the owner's handle, or was the name of another participant.
    """
    key = validation.label_key(label)
    if owners.has_or_had_handle(conn, owner_id, key):
        # Otherwise readers could confuse the posts of the owner with those of this participant.
        raise BusError(
            "conflict", f"{label} is the handle of the project's owner; choose another name.", reason="name_taken"
        )
    row = conn.execute(
        sa.select(participant.c.id, participant.c.label, participant.c.kind, participant.c.removed_at)
        .join(participant_name, participant_name.c.participant_id == participant.c.id)
        .where(participant_name.c.owner_id == owner_id, participant_name.c.label_key == key)
    ).one_or_none()
    if row is None:
        return insert(conn, owner_id, label, kind), True
    if row.removed_at is not None or validation.label_key(row.label) != key:
        raise BusError(
            "conflict",
            f"The name {label} belonged to another participant and is not handed out again; choose another.",
            reason="name_taken",
        )
    return Participant(id=row.id, label=row.label, kind=row.kind), False


def insert(conn: Connection, owner_id: int, label: str, kind: str) -> Participant:
    """Insert a participant and its name. The caller has locked the owner and checked that the name is free."""
    participant_id = conn.execute(
        sa.insert(participant).values(owner_id=owner_id, label=label, kind=kind).returning(participant.c.id)
    ).scalar_one()
    conn.execute(
        sa.insert(participant_name).values(
            owner_id=owner_id, label_key=validation.label_key(label), participant_id=participant_id
        )
    )
    return Participant(id=participant_id, label=label, kind=kind)


def rename(conn: Connection, owner_id: int, participant_id: int, name: str, *, actor: str) -> bool:
    """Rename a participant. Past events keep the old name, which stays reserved for it.

    Returns:
        Whether anything changed.
    Raises:
        BusError: `not_found`; `conflict` when another participant bears or bore the name, or a person in one of its
            projects has that handle.
    Locks: as `owners.lock_names`.
    """
    label = validation.label(name, "name")
    handle = owners.lock_names(conn, owner_id)
    current = _get_active(conn, owner_id, participant_id)
    if label == current.label:
        return False
    key = validation.label_key(label)
    if owners.has_or_had_handle(conn, owner_id, key):
        raise BusError("conflict", f"{label} is your own handle; choose another name.", reason="name_taken")
    if conn.fetch_one_or_none(
        "SELECT 1 FROM owner_handle h JOIN participation p ON p.participant_id = %(participant)s"
        f" WHERE h.handle = %(key)s AND p.removed_at IS NULL AND {_is_or_was_person('p.project_id')} LIMIT 1",
        {"key": key, "participant": participant_id},
    ):
        raise BusError(
            "conflict",
            f"{label} is the handle of a person in one of its projects; choose another name.",
            reason="name_taken",
        )
    name_owner_id = conn.execute(
        sa.select(participant_name.c.participant_id).where(
            participant_name.c.owner_id == owner_id, participant_name.c.label_key == key
        )
    ).scalar_one_or_none()
    if name_owner_id is None:
        conn.execute(
            sa.insert(participant_name).values(owner_id=owner_id, label_key=key, participant_id=participant_id)
        )
    elif name_owner_id != participant_id:
        raise BusError(
            "conflict",
            f"The name {label} belongs or belonged to another participant; choose another.",
            reason="name_taken",
        )
    conn.execute(sa.update(participant).where(participant.c.id == participant_id).values(label=label))
    before = f"{handle}/{current.label}"
    audit.record(conn, owner_id, actor, "participant.rename", f"{handle}/{label}", before=before)
    for project_id, host_id in conn.fetch_all(
        "SELECT pj.id, pj.owner_id FROM participation p JOIN project pj ON pj.id = p.project_id"
        " WHERE p.participant_id = %s AND p.removed_at IS NULL AND pj.owner_id <> %s AND pj.purging_at IS NULL"
        " ORDER BY pj.id",
        (participant_id, owner_id),
    ):
        # For the owners of the projects in which the name is seen.
        audit.record(
            conn, host_id, actor, "participant.rename", f"{handle}/{label}", project_id=project_id, before=before
        )
    return True


def remove(conn: Connection, owner_id: int, participant_id: int, *, actor: str) -> None:
    """Remove a participant from all projects and revoke its tokens; its name stays reserved.

    Past events keep its name. The caller first calls `participations.remove` for each project, in a transaction of
    its own, so that the participant leaves its lanes.

    Raises:
        BusError: `not_found`.
    Locks: the owner, then the participant's tokens by ascending id.
    """
    handle = _lock_owner(conn, owner_id)
    removed = _get_active(conn, owner_id, participant_id)
    rows = conn.fetch_all(
        "SELECT p.id FROM participation p JOIN project pj ON pj.id = p.project_id AND pj.purging_at IS NULL"
        " WHERE p.participant_id = %s AND p.removed_at IS NULL",
        (participant_id,),
    )
    token_store.revoke_all(conn, [participation_id for (participation_id,) in rows])
    conn.execute(
        sa.update(participant).where(participant.c.id == participant_id).values(removed_at=sa.func.clock_timestamp())
    )
    audit.record(conn, owner_id, actor, "participant.remove", f"{handle}/{removed.label}")


def find_active(conn: Connection, owner_id: int, participant_id: int) -> Participant | None:
    """Return a participant of the owner, or None when it was removed or is the owner's own."""
    row = conn.execute(
        sa.select(participant.c.id, participant.c.label, participant.c.kind).where(
            participant.c.id == participant_id,
            participant.c.owner_id == owner_id,
            participant.c.removed_at.is_(None),
            participant.c.label != "",
        )
    ).one_or_none()
    return None if row is None else from_row(Participant, row)


def _get_active(conn: Connection, owner_id: int, participant_id: int) -> Participant:
    active = find_active(conn, owner_id, participant_id)
    if active is None:
        raise NotFound("participant")
    return active


def _lock_owner(conn: Connection, owner_id: int) -> str:
    """Lock the owner, which serialises the assignment of names; return the handle."""
    locked = sa.select(owner.c.handle).where(owner.c.id == owner_id).with_for_update(key_share=True)
    return str(conn.execute(locked).scalar_one())


def validate_kind(kind: str | None) -> str:
    """Return the kind of a new participant: `agent` by default."""
    if kind is not None and kind not in PARTICIPANT_KINDS:
        raise InvalidArgument(f"kind must be one of: {', '.join(PARTICIPANT_KINDS)}.")
    return kind or "agent"


def _is_or_was_person(project: str) -> str:
    """The condition that the owner of the handle `h` has or had a role in a project."""
    return (
        f"(bus_project_role({project}, h.owner_id) IS NOT NULL OR EXISTS ("
        "SELECT FROM participant_name own JOIN participation member ON member.participant_id = own.participant_id"
        f" WHERE own.owner_id = h.owner_id AND own.label_key = '' AND member.project_id = {project}))"
    )


def refuse_handle_as_label(conn: Connection, project_id: int, label: str) -> None:
    """Refuse a label that is the handle of a person in the project: the name alone would mean that person.

    Also of a person who left, since past events carry the name.
    """
    if conn.fetch_one_or_none(
        f"SELECT 1 FROM owner_handle h WHERE h.handle = %(key)s AND {_is_or_was_person('%(project)s')}",
        {"key": validation.label_key(label), "project": project_id},
    ):
        raise BusError(
            "conflict",
            f"{label} is the handle of a person in this project; choose another name.",
            reason="name_taken",
        )


def get_participation_id(conn: Connection, ctx: Ctx, name: str, argument: str) -> int:
    """Return the participation that a filter names; former names and removed participants are found too.

    Raises:
        BusError: `unknown_recipient`, with up to five similar names.
    """
    handle, label = validation.qualified_name(name, argument)
    # The statement authenticates first, so that names are not disclosed to a caller with a bad token.
    (participation_id,) = conn.fetch_one(
        "SELECT bus_find_participation(c.project_id, %s, %s, %s) FROM bus_authenticate(%s, %s, false) c",
        (handle, validation.label_key(label), ctx.participation_id, ctx.participation_id, ctx.token_id),
    )
    if participation_id is None:
        raise unknown_recipient_error(conn, ctx.project_id, name, ctx.participation_id)
    return int(participation_id)


def unknown_recipient_error(
    conn: Connection, project_id: int, wanted: str, caller_participation_id: int | None = None
) -> BusError:
    """Build the error for a name that no participant of the project bears, with up to five similar names.

    Args:
        caller_participation_id: whose names are short; None for those of the project's owner.
    """
    rows = conn.fetch_all(
        "SELECT bus_name_for(coalesce((SELECT own.owner_id FROM participation me"
        "  JOIN participant own ON own.id = me.participant_id WHERE me.id = %s), pj.owner_id),"
        " o.id, o.handle, pt.label) FROM participation p"
        " JOIN project pj ON pj.id = p.project_id"
        " JOIN participant pt ON pt.id = p.participant_id JOIN owner o ON o.id = pt.owner_id"
        " WHERE p.project_id = %s AND p.removed_at IS NULL AND pt.removed_at IS NULL ORDER BY p.id LIMIT 200",
        (caller_participation_id, project_id),
    )
    return _build_unknown_recipient_error(wanted, [label for (label,) in rows])


def with_suggestions(error: BusError) -> BusError:
    """Add similar names to an `unknown_recipient` error that SQL raised; return other errors unchanged."""
    if error.code != "unknown_recipient":
        return error
    return _build_unknown_recipient_error(
        str(error.data.get("wanted", "")), [str(name) for name in error.data.get("names", ())]
    )


def _build_unknown_recipient_error(wanted: str, labels: list[str]) -> BusError:
    by_key: dict[str, list[str]] = {}
    for label in labels:
        # Of a qualified name, the label is compared alone: participants of several owners may have it.
        by_key.setdefault(validation.label_key(label.rpartition("/")[2]), []).append(label)
    key = validation.label_key(wanted.rpartition("/")[2])
    matches = get_close_matches(key, by_key, n=5, cutoff=0.5)
    near = [label for match in matches for label in by_key[match]][:5]
    message = f'No participant of this project is called "{wanted}".'
    if near:
        return BusError("unknown_recipient", f"{message} Did you mean {', '.join(near)}?", near=near)
    return BusError("unknown_recipient", message, hint="list_participants", near=near)
