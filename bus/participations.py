"""Participations: participants granted into a project, with their tokens. For doors that act for an owner."""

from dataclasses import dataclass, field

import sqlalchemy as sa

from bus import audit, names, tokens
from bus.db import Connection
from bus.errors import BusError, InvalidArgument
from bus.rules import text
from bus.tables import PARTICIPANT_KINDS, owner, participant, participant_name, participation, project


@dataclass(frozen=True, slots=True)
class Grant:
    """A participation with a token that is shown this once."""

    participation_id: int
    project: str
    participant: str
    actor: str
    kind: str
    lane: str | None
    is_admin: bool
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Place:
    """A project whose grants are changed: locked."""

    project_id: int
    name: str
    owner_id: int
    handle: str


def grant(
    conn: Connection,
    project_id: int,
    name: str,
    *,
    kind: str | None = None,
    lane: str | None = None,
    is_admin: bool = False,
    actor: str = "cli",
    fresh: bool = False,
) -> Grant:
    """Grant a participant into a project, creating it where the owner has none of that name, and mint a token.

    Args:
        name: the participant's label, or `handle/label` with the owner's own handle.
        kind: `agent` (the default) or `human`; that of an existing participant stays as it is.
        lane: the lane it is granted, or None; its newest posts that nobody has acked are delivered.
        fresh: refuse a participant that exists in another project of the owner already (invites).
    Raises:
        BusError: `conflict` when the participant is in the project already, or when the name belongs or belonged
            to another one; `forbidden` when the project is archived.
    Locks: the project clock, then the owner.
    """
    label = _own_label(conn, project_id, name)
    chosen = _kind(kind)
    granted_lane = text.name(lane, "lane") if lane is not None else None
    place = _enter(conn, project_id)
    participant_id, label, kept_kind, existed = _participant(conn, place, label, chosen)
    if existed and fresh:
        raise BusError("conflict", f"The name {label} is taken; choose another.", reason="name_taken")
    row = conn.run(
        sa.select(participation.c.id, participation.c.removed_at).where(
            participation.c.project_id == project_id, participation.c.participant_id == participant_id
        )
    ).one_or_none()
    if row is not None and row.removed_at is None:
        raise BusError(
            "conflict",
            f"{label} is in this project already; rotate its token to get a new one (admin_rotate).",
            reason="name_taken",
        )
    values = {"lane": granted_lane, "is_admin": is_admin, "removed_at": None}
    if row is None:
        statement = sa.insert(participation).values(project_id=project_id, participant_id=participant_id, **values)
        participation_id = conn.run(statement.returning(participation.c.id)).scalar_one()
    else:
        participation_id = row.id
        conn.run(sa.update(participation).where(participation.c.id == participation_id).values(**values))
    minted = tokens.mint(conn, participation_id)
    _join_own_lane(conn, project_id, participation_id)
    audit.record(
        conn,
        place.owner_id,
        actor,
        "participation.grant",
        f"{place.handle}/{label}",
        project_id=project_id,
        kind=kept_kind,
        lane=granted_lane,
        is_admin=is_admin,
        token=minted.hint,
    )
    return Grant(
        participation_id,
        place.name,
        label,
        f"{place.handle}/{label}",
        kept_kind,
        granted_lane,
        is_admin,
        minted.text,
    )


def rotate(conn: Connection, project_id: int, name: str, *, actor: str = "cli") -> Grant:
    """Mint a new token for a participation, then revoke its older ones.

    Raises:
        BusError: `unknown_recipient` when nobody of that name is in the project.
    """
    place = _enter(conn, project_id)
    found = get(conn, project_id, name)
    minted = tokens.mint(conn, found.participation_id)
    revoked = tokens.revoke_all(conn, found.participation_id, but=minted.id)
    # Without a live token it was in no lane; with one it is again.
    _join_own_lane(conn, project_id, found.participation_id)
    audit.record(
        conn,
        place.owner_id,
        actor,
        "token.rotate",
        found.actor,
        project_id=project_id,
        token=minted.hint,
        revoked=revoked,
    )
    return Grant(
        found.participation_id,
        place.name,
        found.label,
        found.actor,
        found.kind,
        found.lane,
        found.is_admin,
        minted.text,
    )


def revoke(conn: Connection, project_id: int, name: str, *, actor: str = "cli") -> tuple["Found", int]:
    """Revoke every token of a participation; it stays in the project. Returns it and how many were revoked."""
    place = _enter(conn, project_id, archived_too=True)
    found = get(conn, project_id, name)
    revoked = tokens.revoke_all(conn, found.participation_id)
    if revoked:
        audit.record(
            conn,
            place.owner_id,
            actor,
            "token.revoke",
            found.actor,
            project_id=project_id,
            revoked=revoked,
        )
    return found, revoked


def remove(conn: Connection, project_id: int, name: str, *, actor: str = "cli") -> "Found":
    """Take the grant away: its tokens are revoked and it is no longer in the project; what it did stays.

    It leaves its lane, so that one who is granted again is in the lane of the new grant.
    """
    place = _enter(conn, project_id, archived_too=True)
    found = get(conn, project_id, name)
    tokens.revoke_all(conn, found.participation_id)
    _leave_own_lane(conn, project_id, found.participation_id)
    conn.run(
        sa.update(participation)
        .where(participation.c.id == found.participation_id)
        .values(removed_at=sa.func.clock_timestamp())
    )
    audit.record(conn, place.owner_id, actor, "participation.remove", found.actor, project_id=project_id)
    return found


def set_admin(conn: Connection, project_id: int, name: str, is_admin: bool, *, actor: str = "cli") -> "Found":
    """Make a participation project-admin, or demote it."""
    place = _enter(conn, project_id, archived_too=not is_admin)
    found = get(conn, project_id, name)
    conn.run(sa.update(participation).where(participation.c.id == found.participation_id).values(is_admin=is_admin))
    audit.record(
        conn,
        place.owner_id,
        actor,
        "participation.admin",
        found.actor,
        project_id=project_id,
        is_admin=is_admin,
    )
    return found


@dataclass(frozen=True, slots=True)
class Found:
    """A participation that is in the project now."""

    participation_id: int
    participant_id: int
    label: str
    actor: str
    kind: str
    lane: str | None
    is_admin: bool


def get(conn: Connection, project_id: int, name: str, argument: str = "participant_name") -> Found:
    """The participation that goes by `label` or `handle/label` in the project.

    Raises:
        BusError: `unknown_recipient`, with up to five near names.
    """
    found = find(conn, project_id, name, argument)
    if found is None:
        raise names.unknown(conn, project_id, name)
    return found


def find(conn: Connection, project_id: int, name: str, argument: str = "participant_name") -> Found | None:
    """As `get`, but None where there is none."""
    handle, label = text.qualified(name, argument)
    row = conn.maybe(
        "SELECT p.id, pt.id, pt.label, bus_actor(p.id), pt.kind, p.lane, p.is_admin FROM participation p"
        " JOIN participant pt ON pt.id = p.participant_id"
        " WHERE p.id = bus_named(%s, %s, %s) AND p.removed_at IS NULL AND pt.removed_at IS NULL",
        (project_id, handle, text.label_key(label)),
    )
    return Found(*row) if row else None


def list_(conn: Connection, project_id: int, *, after: int = 0, limit: int = 200) -> list[Found]:
    """Participations of a project by id, at most `limit`, with ids above `after`."""
    return [
        Found(*row)
        for row in conn.all(
            "SELECT p.id, pt.id, pt.label, bus_actor(p.id), pt.kind, p.lane, p.is_admin FROM participation p"
            " JOIN participant pt ON pt.id = p.participant_id"
            " WHERE p.project_id = %s AND p.id > %s AND p.removed_at IS NULL AND pt.removed_at IS NULL"
            " ORDER BY p.id LIMIT %s",
            (project_id, after, limit),
        )
    ]


def _enter(conn: Connection, project_id: int, *, archived_too: bool = False) -> _Place:
    """Lock the project clock and then the owner, whose names are handed out one at a time.

    Args:
        archived_too: for what takes access away: tokens go on reading in an archived project, so a leaked one
            must be revocable there.
    """
    conn.maybe("SELECT bus_lock_clock(%s)", (project_id,))
    row = conn.run(
        sa.select(project.c.name, owner.c.id, owner.c.handle, project.c.archived_at)
        .join(owner, owner.c.id == project.c.owner_id)
        .where(project.c.id == project_id, project.c.purging_at.is_(None))
        .with_for_update(of=owner, key_share=True)
    ).one_or_none()
    if row is None:
        raise BusError("not_found", "There is no such project.")
    if row.archived_at is not None and not archived_too:
        raise BusError("forbidden", "This project is archived: reading works, writing does not.")
    return _Place(project_id, row.name, row.id, row.handle)


def _own_label(conn: Connection, project_id: int, name: str) -> str:
    handle, label = text.qualified(name, "participant_name")
    if handle is not None:
        own = conn.maybe(
            "SELECT o.handle FROM project p JOIN owner o ON o.id = p.owner_id WHERE p.id = %s", (project_id,)
        )
        if own != (handle,):
            raise InvalidArgument("participant_name must be a plain label; participants belong to the project's owner.")
    return label


def _kind(kind: str | None) -> str:
    if kind is not None and kind not in PARTICIPANT_KINDS:
        raise InvalidArgument(f"kind must be one of: {', '.join(PARTICIPANT_KINDS)}.")
    return kind or "agent"


def _participant(conn: Connection, place: _Place, label: str, kind: str) -> tuple[int, str, str, bool]:
    """The owner's participant of that name, created where there is none: id, label, kind, whether it existed."""
    key = text.label_key(label)
    row = conn.run(
        sa.select(participant.c.id, participant.c.label, participant.c.kind, participant.c.removed_at)
        .join(participant_name, participant_name.c.participant_id == participant.c.id)
        .where(participant_name.c.owner_id == place.owner_id, participant_name.c.label_key == key)
    ).one_or_none()
    if row is not None:
        if row.removed_at is not None or text.label_key(row.label) != key:
            raise BusError(
                "conflict",
                f"The name {label} belonged to another participant and is not handed out again; choose another.",
                reason="name_taken",
            )
        return row.id, row.label, row.kind, True
    participant_id = conn.run(
        sa.insert(participant).values(owner_id=place.owner_id, label=label, kind=kind).returning(participant.c.id)
    ).scalar_one()
    conn.run(sa.insert(participant_name).values(owner_id=place.owner_id, label_key=key, participant_id=participant_id))
    return participant_id, label, kind, False


def _join_own_lane(conn: Connection, project_id: int, participation_id: int) -> None:
    """Deliver what waits in the lane that the participation is in: the one registered last, else the granted."""
    conn.maybe(
        "SELECT bus_join_lane(p.project_id, p.id, coalesce(pr.lane, p.lane)) FROM participation p"
        " LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id"
        " WHERE p.id = %s AND p.project_id = %s AND coalesce(pr.lane, p.lane) IS NOT NULL",
        (participation_id, project_id),
    )


def _leave_own_lane(conn: Connection, project_id: int, participation_id: int) -> None:
    """Withdraw what waits because of the lane that the participation is in, and forget that it registered."""
    conn.maybe(
        "SELECT bus_leave_lane(p.project_id, p.id, coalesce(pr.lane, p.lane)) FROM participation p"
        " LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id"
        " WHERE p.id = %s AND p.project_id = %s AND coalesce(pr.lane, p.lane) IS NOT NULL",
        (participation_id, project_id),
    )
    conn.maybe(
        "UPDATE presence SET lane = NULL, status = '', registered_at = NULL"
        " WHERE project_id = %s AND participation_id = %s RETURNING 1",
        (project_id, participation_id),
    )
