"""Names and places: an owner's participants, and the project that one of them is let into, both locked.

Whoever changes grants or names enters here first, so that a name is handed out once.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from bus.db import Connection
from bus.errors import BusError, InvalidArgument, NotFound
from bus.rules import validation
from bus.rules.enums import PARTICIPANT_KINDS
from bus.tenancy.tables import owner, participant, participant_name, project


@dataclass(frozen=True, slots=True)
class LockedProject:
    """A project whose grants are changed: locked."""

    project_id: int
    project_name: str
    owner_id: int
    owner_handle: str


@dataclass(frozen=True, slots=True)
class OwnedParticipant:
    """A participant of the owner; `existed` is false where it was created just now."""

    id: int
    label: str
    kind: str
    already_existed: bool


def lock_project(conn: Connection, project_id: int, *, allow_archived: bool = False) -> LockedProject:
    """Lock the project clock and then the owner, whose names are handed out one at a time.

    Args:
        archived_too: for what takes access away: tokens go on reading in an archived project, so a leaked one
            must be revocable there.
    """
    conn.execute("SELECT bus_lock_clock(%s)", (project_id,))
    row = conn.execute(
        sa.select(project.c.name, owner.c.id, owner.c.handle, project.c.archived_at)
        .join(owner, owner.c.id == project.c.owner_id)
        .where(project.c.id == project_id, project.c.purging_at.is_(None))
        .with_for_update(of=owner, key_share=True)
    ).one_or_none()
    if row is None:
        raise NotFound("project")
    if row.archived_at is not None and not allow_archived:
        raise BusError("forbidden", "This project is archived: reading works, writing does not.")
    return LockedProject(project_id, row.name, row.id, row.handle)


def validate_own_label(conn: Connection, project_id: int, name: str) -> str:
    """The label in `label` or `handle/label`, where the handle is that of the project's owner."""
    handle, label = validation.qualified_name(name, "participant_name")
    if handle is not None:
        own = conn.fetch_one_or_none(
            "SELECT o.handle FROM project p JOIN owner o ON o.id = p.owner_id WHERE p.id = %s", (project_id,)
        )
        if own != (handle,):
            raise InvalidArgument("participant_name must be a plain label; participants belong to the project's owner.")
    return label


def validate_kind(kind: str | None) -> str:
    """The kind that a new participant is of; `agent` where none is said."""
    if kind is not None and kind not in PARTICIPANT_KINDS:
        raise InvalidArgument(f"kind must be one of: {', '.join(PARTICIPANT_KINDS)}.")
    return kind or "agent"


def get_or_create_participant(conn: Connection, owner_id: int, handle: str, label: str, kind: str) -> OwnedParticipant:
    """The owner's participant of that name, created where there is none."""
    key = validation.label_key(label)
    if key == handle:
        # Else what the owner says and what this participant is sent could be taken for the other's.
        raise BusError("conflict", f"{label} is what the owner is called here; choose another.", reason="name_taken")
    row = conn.execute(
        sa.select(participant.c.id, participant.c.label, participant.c.kind, participant.c.removed_at)
        .join(participant_name, participant_name.c.participant_id == participant.c.id)
        .where(participant_name.c.owner_id == owner_id, participant_name.c.label_key == key)
    ).one_or_none()
    if row is not None:
        if row.removed_at is not None or validation.label_key(row.label) != key:
            raise BusError(
                "conflict",
                f"The name {label} belonged to another participant and is not handed out again; choose another.",
                reason="name_taken",
            )
        return OwnedParticipant(row.id, row.label, row.kind, True)
    return OwnedParticipant(create_participant(conn, owner_id, label, kind), label, kind, False)


def create_participant(conn: Connection, owner_id: int, label: str, kind: str) -> int:
    """Create a participant; the owner is locked."""
    made = sa.insert(participant).values(owner_id=owner_id, label=label, kind=kind).returning(participant.c.id)
    participant_id = int(conn.execute(made).scalar_one())
    conn.execute(
        sa.insert(participant_name).values(
            owner_id=owner_id, label_key=validation.label_key(label), participant_id=participant_id
        )
    )
    return participant_id
