"""Participations: participants granted into a project, with their tokens. For doors that act for an owner."""

from dataclasses import dataclass, field
from datetime import timedelta

import sqlalchemy as sa

from bus.db import Connection
from bus.errors import BusError, NotFound
from bus.rules import validation
from bus.tenancy import audit, members, roster, tokens
from bus.tenancy.members import Participation
from bus.tenancy.roster import LockedProject, OwnedParticipant
from bus.tenancy.tables import participant, participant_name, participation


@dataclass(frozen=True, slots=True)
class IssuedParticipation:
    """A participation with a token that is shown this once; `created` says whether the participant is new."""

    participation_id: int
    project: str
    participant: str
    actor: str
    kind: str
    lane: str | None
    is_admin: bool
    token: str = field(repr=False)
    created: bool = False


def grant_participation(
    conn: Connection,
    project_id: int,
    name: str,
    *,
    kind: str | None = None,
    lane: str | None = None,
    is_admin: bool = False,
    ttl: timedelta | None = None,
    actor: str,
    require_new: bool = False,
) -> IssuedParticipation:
    """Grant a participant into a project, creating it where the owner has none of that name, and mint a token.

    Args:
        name: the participant's label, or `handle/label` with the owner's own handle.
        kind: `agent` (the default) or `human`; that of an existing participant stays as it is.
        lane: the lane it is granted, or None; its newest posts that nobody has acked are delivered.
        ttl: how long the token lives; None is until it is revoked.
        fresh: refuse a participant that exists in another project of the owner already (invites).
    Raises:
        BusError: `conflict` when the participant is in the project already, or when the name belongs or belonged
            to another one; `forbidden` when the project is archived.
    Locks: the project clock, then the owner.
    """
    label = roster.validate_own_label(conn, project_id, name)
    chosen = roster.validate_kind(kind)
    granted_lane = validation.name(lane, "lane") if lane is not None else None
    place = roster.lock_project(conn, project_id)
    person = roster.get_or_create_participant(conn, place.owner_id, place.owner_handle, label, chosen)
    if person.already_existed and require_new:
        raise BusError("conflict", f"The name {person.label} is taken; choose another.", reason="name_taken")
    if members.find_participation(conn, project_id, person.label) is not None:
        raise BusError(
            "conflict",
            f"{person.label} is in this project already; rotate its token to get a new one.",
            hint="rotate_token",
            reason="name_taken",
        )
    return _join_project(conn, place, person, granted_lane, is_admin, ttl, actor)


def join_or_add_token(
    conn: Connection,
    project_id: int,
    participant_id: int,
    *,
    lane: str | None = None,
    is_admin: bool = False,
    actor: str,
) -> IssuedParticipation:
    """Mint one more token for a participant of the project's owner, letting it into the project where it is not in.

    Args:
        lane, is_admin: count only where it is let in; who is in the project keeps what it was granted.
    Raises:
        BusError: `not_found` when the owner has no such participant, or it was removed.
    Locks: the project clock, then the owner.
    """
    place = roster.lock_project(conn, project_id)
    row = conn.execute(
        sa.select(participant.c.id, participant.c.label, participant.c.kind).where(
            participant.c.id == participant_id,
            participant.c.owner_id == place.owner_id,
            participant.c.removed_at.is_(None),
            participant.c.label != "",
        )
    ).one_or_none()
    if row is None:
        raise BusError("not_found", "That participant is gone; ask whoever sent you here.", reason="invalid")
    if members.find_participation(conn, project_id, row.label) is not None:
        return add_token(conn, project_id, row.label, actor=actor)
    return _join_project(conn, place, OwnedParticipant(row.id, row.label, row.kind, True), lane, is_admin, None, actor)


def _join_project(
    conn: Connection,
    project: LockedProject,
    joining: OwnedParticipant,
    lane: str | None,
    is_admin: bool,
    ttl: timedelta | None,
    actor: str,
) -> IssuedParticipation:
    participation_id = _insert_or_restore(conn, project.project_id, joining.id, lane, is_admin)
    minted = tokens.mint(conn, participation_id, ttl=ttl)
    _join_current_lane(conn, project.project_id, participation_id)
    qualified = f"{project.owner_handle}/{joining.label}"
    audit.record(
        conn,
        project.owner_id,
        actor,
        "participation.grant",
        qualified,
        project_id=project.project_id,
        kind=joining.kind,
        lane=lane,
        is_admin=is_admin,
        token=minted.hint,
    )
    return IssuedParticipation(
        participation_id,
        project.project_name,
        joining.label,
        qualified,
        joining.kind,
        lane,
        is_admin,
        minted.text,
        not joining.already_existed,
    )


def _insert_or_restore(conn: Connection, project_id: int, participant_id: int, lane: str | None, is_admin: bool) -> int:
    """The participation of a participant that is not in the project, made or taken up again."""
    values = {"lane": lane, "is_admin": is_admin, "removed_at": None}
    again = conn.execute(
        sa.update(participation)
        .where(participation.c.project_id == project_id, participation.c.participant_id == participant_id)
        .values(**values)
        .returning(participation.c.id)
    ).scalar_one_or_none()
    if again is not None:
        return int(again)
    statement = sa.insert(participation).values(project_id=project_id, participant_id=participant_id, **values)
    return int(conn.execute(statement.returning(participation.c.id)).scalar_one())


def get_or_create_owner_participation(conn: Connection, project_id: int) -> int:
    """The participation under which the project's owner acts in the web, made where there is none.

    Its participant has the empty label, so its qualified name is the handle alone, and it never has a token.

    Locks: the project clock, then the owner: of several who make it at once one does.
    """
    place = roster.lock_project(conn, project_id, allow_archived=True)
    participant_id = conn.execute(
        sa.select(participant_name.c.participant_id).where(
            participant_name.c.owner_id == place.owner_id, participant_name.c.label_key == ""
        )
    ).scalar_one_or_none()
    if participant_id is None:
        participant_id = roster.create_participant(conn, place.owner_id, "", "human")
    found = conn.execute(
        sa.select(participation.c.id).where(
            participation.c.project_id == project_id, participation.c.participant_id == participant_id
        )
    ).scalar_one_or_none()
    return int(found) if found is not None else _insert_or_restore(conn, project_id, participant_id, None, True)


def add_token(
    conn: Connection,
    project_id: int,
    reference: str | int,
    *,
    label: str = "",
    ttl: timedelta | None = None,
    actor: str,
) -> IssuedParticipation:
    """Mint one more token for a participation; the others go on working.

    Args:
        who: as for `members.get`.
        label: what the owner calls the token, at most 64 characters; may be empty.
    Locks: the project clock, then the owner.
    """
    if label:
        validation.name(label, "label")
    place = roster.lock_project(conn, project_id)
    found = _get_token_holder(conn, project_id, reference)
    minted = tokens.mint(conn, found.participation_id, label=label, ttl=ttl)
    # Without a live token it was in no lane; with one it is again.
    _join_current_lane(conn, project_id, found.participation_id)
    audit.record(
        conn, place.owner_id, actor, "token.add", found.actor, project_id=project_id, token=minted.hint, label=label
    )
    return _build_issued(place, found, minted)


def _build_issued(project: LockedProject, holder: Participation, minted: tokens.MintedToken) -> IssuedParticipation:
    return IssuedParticipation(
        holder.participation_id,
        project.project_name,
        holder.label,
        holder.actor,
        holder.kind,
        holder.lane,
        holder.is_admin,
        minted.text,
    )


def rotate_tokens(
    conn: Connection, project_id: int, reference: str | int, *, ttl: timedelta | None = None, actor: str
) -> IssuedParticipation:
    """Mint a new token for a participation, then revoke its older ones.

    Args:
        who: as for `members.get`.
    Raises:
        BusError: `unknown_recipient` when nobody of that name is in the project.
    """
    place = roster.lock_project(conn, project_id)
    found = _get_token_holder(conn, project_id, reference)
    minted = tokens.mint(conn, found.participation_id, ttl=ttl)
    revoked = tokens.revoke_all(conn, found.participation_id, except_token_id=minted.id)
    _join_current_lane(conn, project_id, found.participation_id)
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
    return _build_issued(place, found, minted)


def revoke_tokens(conn: Connection, project_id: int, reference: str | int, *, actor: str) -> tuple[Participation, int]:
    """Revoke every token of a participation; it stays in the project. Returns it and how many were revoked."""
    place = roster.lock_project(conn, project_id, allow_archived=True)
    found = _get_token_holder(conn, project_id, reference)
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


def revoke_token(conn: Connection, project_id: int, token_id: int, *, actor: str) -> bool:
    """Revoke one token of the project. Returns whether anything changed.

    Raises:
        BusError: `not_found` when the project has no such token.
    """
    place = roster.lock_project(conn, project_id, allow_archived=True)
    row = conn.fetch_one_or_none(
        "SELECT t.hint, bus_participation_name(p.id) FROM token t JOIN participation p ON p.id = t.participation_id"
        " WHERE t.id = %s AND p.project_id = %s",
        (token_id, project_id),
    )
    if row is None:
        raise NotFound("token")
    if not tokens.revoke(conn, token_id):
        return False
    audit.record(conn, place.owner_id, actor, "token.revoke", row[1], project_id=project_id, token=row[0])
    return True


def remove_participation(conn: Connection, project_id: int, reference: str | int, *, actor: str) -> Participation:
    """Take the grant away: its tokens are revoked and it is no longer in the project; what it did stays.

    It leaves its lane, so that one who is granted again is in the lane of the new grant.
    """
    place = roster.lock_project(conn, project_id, allow_archived=True)
    found = _get_token_holder(conn, project_id, reference)
    tokens.revoke_all(conn, found.participation_id)
    _leave_current_lane(conn, project_id, found.participation_id)
    conn.execute(
        sa.update(participation)
        .where(participation.c.id == found.participation_id)
        .values(removed_at=sa.func.clock_timestamp())
    )
    audit.record(conn, place.owner_id, actor, "participation.remove", found.actor, project_id=project_id)
    return found


def set_admin(conn: Connection, project_id: int, reference: str | int, is_admin: bool, *, actor: str) -> Participation:
    """Make a participation project-admin, or demote it."""
    place = roster.lock_project(conn, project_id, allow_archived=not is_admin)
    found = _get_token_holder(conn, project_id, reference)
    conn.execute(sa.update(participation).where(participation.c.id == found.participation_id).values(is_admin=is_admin))
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


def set_lane(conn: Connection, project_id: int, reference: str | int, lane: str | None, *, actor: str) -> Participation:
    """Grant another lane, or none. Who has registered a lane stays in that one.

    Posts that waited because of the old lane are withdrawn, and the newest that nobody has acked in the new one
    are delivered.
    """
    granted_lane = validation.name(lane, "lane") if lane is not None else None
    place = roster.lock_project(conn, project_id)
    found = _get_token_holder(conn, project_id, reference)
    if found.lane == granted_lane:
        return found
    registered = conn.fetch_one_or_none(
        "SELECT lane FROM presence WHERE project_id = %s AND participation_id = %s AND lane IS NOT NULL",
        (project_id, found.participation_id),
    )
    if registered is None and found.lane is not None:
        conn.execute("SELECT bus_leave_lane(%s, %s, %s)", (project_id, found.participation_id, found.lane))
    conn.execute(sa.update(participation).where(participation.c.id == found.participation_id).values(lane=granted_lane))
    if registered is None:
        _join_current_lane(conn, project_id, found.participation_id)
    audit.record(
        conn, place.owner_id, actor, "participation.lane", found.actor, project_id=project_id, lane=granted_lane
    )
    return found


def _get_token_holder(conn: Connection, project_id: int, reference: str | int) -> Participation:
    """As `members.get`, for what is done to those who hold tokens: the owner has none, and nobody mints one for it."""
    found = members.get_participation(conn, project_id, reference)
    if found.is_owner:
        raise BusError("forbidden", f"{found.actor} is the project's owner, who acts in the web and has no token.")
    return found


def _join_current_lane(conn: Connection, project_id: int, participation_id: int) -> None:
    """Deliver what waits in the lane that the participation is in: the one registered last, else the granted."""
    conn.execute(
        "SELECT bus_join_lane(p.project_id, p.id, coalesce(pr.lane, p.lane)) FROM participation p"
        " LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id"
        " WHERE p.id = %s AND p.project_id = %s AND coalesce(pr.lane, p.lane) IS NOT NULL",
        (participation_id, project_id),
    )


def _leave_current_lane(conn: Connection, project_id: int, participation_id: int) -> None:
    """Withdraw what waits because of the lane that the participation is in, and forget that it registered."""
    conn.execute(
        "SELECT bus_leave_lane(p.project_id, p.id, coalesce(pr.lane, p.lane)) FROM participation p"
        " LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id"
        " WHERE p.id = %s AND p.project_id = %s AND coalesce(pr.lane, p.lane) IS NOT NULL",
        (participation_id, project_id),
    )
    conn.execute(
        "UPDATE presence SET lane = NULL, status = '', registered_at = NULL"
        " WHERE project_id = %s AND participation_id = %s",
        (project_id, participation_id),
    )
