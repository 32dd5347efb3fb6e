"""Participations: participants granted into a project, with their tokens. For doors that act for an owner."""

from dataclasses import dataclass, field
from datetime import timedelta

import sqlalchemy as sa

from bus.db import Connection
from bus.errors import BusError
from bus.rules import validation
from bus.tenancy import audit, members, roster, tokens
from bus.tenancy.members import Found
from bus.tenancy.roster import Person, Place
from bus.tenancy.tables import participant, participant_name, participation


@dataclass(frozen=True, slots=True)
class Grant:
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


def grant(
    conn: Connection,
    project_id: int,
    name: str,
    *,
    kind: str | None = None,
    lane: str | None = None,
    is_admin: bool = False,
    ttl: timedelta | None = None,
    actor: str = "cli",
    fresh: bool = False,
) -> Grant:
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
    label = roster.own_label(conn, project_id, name)
    chosen = roster.kind_of(kind)
    granted_lane = validation.name(lane, "lane") if lane is not None else None
    place = roster.enter(conn, project_id)
    person = roster.person(conn, place.owner_id, place.handle, label, chosen)
    if person.existed and fresh:
        raise BusError("conflict", f"The name {person.label} is taken; choose another.", reason="name_taken")
    if members.find(conn, project_id, person.label) is not None:
        raise BusError(
            "conflict",
            f"{person.label} is in this project already; rotate its token to get a new one (admin_rotate).",
            reason="name_taken",
        )
    return _let_in(conn, place, person, granted_lane, is_admin, ttl, actor)


def admit(
    conn: Connection,
    project_id: int,
    participant_id: int,
    *,
    lane: str | None = None,
    is_admin: bool = False,
    actor: str,
) -> Grant:
    """Mint one more token for a participant of the project's owner, letting it into the project where it is not in.

    Args:
        lane, is_admin: count only where it is let in; who is in the project keeps what it was granted.
    Raises:
        BusError: `not_found` when the owner has no such participant, or it was removed.
    Locks: the project clock, then the owner.
    """
    place = roster.enter(conn, project_id)
    row = conn.run(
        sa.select(participant.c.id, participant.c.label, participant.c.kind).where(
            participant.c.id == participant_id,
            participant.c.owner_id == place.owner_id,
            participant.c.removed_at.is_(None),
            participant.c.label != "",
        )
    ).one_or_none()
    if row is None:
        raise BusError("not_found", "That participant is gone; ask whoever sent you here.", reason="invalid")
    if members.find(conn, project_id, row.label) is not None:
        return add_token(conn, project_id, row.label, actor=actor)
    return _let_in(conn, place, Person(row.id, row.label, row.kind, True), lane, is_admin, None, actor)


def _let_in(
    conn: Connection,
    place: Place,
    person: Person,
    lane: str | None,
    is_admin: bool,
    ttl: timedelta | None,
    actor: str,
) -> Grant:
    participation_id = _make(conn, place.project_id, person.id, lane, is_admin)
    minted = tokens.mint(conn, participation_id, ttl=ttl)
    _join_own_lane(conn, place.project_id, participation_id)
    qualified = f"{place.handle}/{person.label}"
    audit.record(
        conn,
        place.owner_id,
        actor,
        "participation.grant",
        qualified,
        project_id=place.project_id,
        kind=person.kind,
        lane=lane,
        is_admin=is_admin,
        token=minted.hint,
    )
    return Grant(
        participation_id,
        place.name,
        person.label,
        qualified,
        person.kind,
        lane,
        is_admin,
        minted.text,
        not person.existed,
    )


def _make(conn: Connection, project_id: int, participant_id: int, lane: str | None, is_admin: bool) -> int:
    """The participation of a participant that is not in the project, made or taken up again."""
    values = {"lane": lane, "is_admin": is_admin, "removed_at": None}
    again = conn.run(
        sa.update(participation)
        .where(participation.c.project_id == project_id, participation.c.participant_id == participant_id)
        .values(**values)
        .returning(participation.c.id)
    ).scalar_one_or_none()
    if again is not None:
        return int(again)
    statement = sa.insert(participation).values(project_id=project_id, participant_id=participant_id, **values)
    return int(conn.run(statement.returning(participation.c.id)).scalar_one())


def own(conn: Connection, project_id: int) -> int:
    """The participation under which the project's owner acts in the web, made where there is none.

    Its participant has the empty label, so its qualified name is the handle alone, and it never has a token.

    Locks: the project clock, then the owner: of several who make it at once one does.
    """
    place = roster.enter(conn, project_id, archived_too=True)
    participant_id = conn.run(
        sa.select(participant_name.c.participant_id).where(
            participant_name.c.owner_id == place.owner_id, participant_name.c.label_key == ""
        )
    ).scalar_one_or_none()
    if participant_id is None:
        participant_id = roster.create(conn, place.owner_id, "", "human")
    found = conn.run(
        sa.select(participation.c.id).where(
            participation.c.project_id == project_id, participation.c.participant_id == participant_id
        )
    ).scalar_one_or_none()
    return int(found) if found is not None else _make(conn, project_id, participant_id, None, True)


def add_token(
    conn: Connection, project_id: int, who: str | int, *, label: str = "", ttl: timedelta | None = None, actor: str
) -> Grant:
    """Mint one more token for a participation; the others go on working.

    Args:
        who: as for `members.get`.
        label: what the owner calls the token, at most 64 characters; may be empty.
    Locks: the project clock, then the owner.
    """
    if label:
        validation.name(label, "label")
    place = roster.enter(conn, project_id)
    found = _member(conn, project_id, who)
    minted = tokens.mint(conn, found.participation_id, label=label, ttl=ttl)
    # Without a live token it was in no lane; with one it is again.
    _join_own_lane(conn, project_id, found.participation_id)
    audit.record(
        conn, place.owner_id, actor, "token.add", found.actor, project_id=project_id, token=minted.hint, label=label
    )
    return _granted(place, found, minted)


def _granted(place: Place, found: Found, minted: tokens.Minted) -> Grant:
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


def rotate(
    conn: Connection, project_id: int, who: str | int, *, ttl: timedelta | None = None, actor: str = "cli"
) -> Grant:
    """Mint a new token for a participation, then revoke its older ones.

    Args:
        who: as for `members.get`.
    Raises:
        BusError: `unknown_recipient` when nobody of that name is in the project.
    """
    place = roster.enter(conn, project_id)
    found = _member(conn, project_id, who)
    minted = tokens.mint(conn, found.participation_id, ttl=ttl)
    revoked = tokens.revoke_all(conn, found.participation_id, but=minted.id)
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
    return _granted(place, found, minted)


def revoke(conn: Connection, project_id: int, who: str | int, *, actor: str = "cli") -> tuple[Found, int]:
    """Revoke every token of a participation; it stays in the project. Returns it and how many were revoked."""
    place = roster.enter(conn, project_id, archived_too=True)
    found = _member(conn, project_id, who)
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
    place = roster.enter(conn, project_id, archived_too=True)
    row = conn.maybe(
        "SELECT t.hint, bus_actor(p.id) FROM token t JOIN participation p ON p.id = t.participation_id"
        " WHERE t.id = %s AND p.project_id = %s",
        (token_id, project_id),
    )
    if row is None:
        raise BusError("not_found", "There is no such token.")
    if not tokens.revoke_one(conn, token_id):
        return False
    audit.record(conn, place.owner_id, actor, "token.revoke", row[1], project_id=project_id, token=row[0])
    return True


def remove(conn: Connection, project_id: int, who: str | int, *, actor: str = "cli") -> Found:
    """Take the grant away: its tokens are revoked and it is no longer in the project; what it did stays.

    It leaves its lane, so that one who is granted again is in the lane of the new grant.
    """
    place = roster.enter(conn, project_id, archived_too=True)
    found = _member(conn, project_id, who)
    tokens.revoke_all(conn, found.participation_id)
    _leave_own_lane(conn, project_id, found.participation_id)
    conn.run(
        sa.update(participation)
        .where(participation.c.id == found.participation_id)
        .values(removed_at=sa.func.clock_timestamp())
    )
    audit.record(conn, place.owner_id, actor, "participation.remove", found.actor, project_id=project_id)
    return found


def set_admin(conn: Connection, project_id: int, who: str | int, is_admin: bool, *, actor: str = "cli") -> Found:
    """Make a participation project-admin, or demote it."""
    place = roster.enter(conn, project_id, archived_too=not is_admin)
    found = _member(conn, project_id, who)
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


def set_lane(conn: Connection, project_id: int, who: str | int, lane: str | None, *, actor: str) -> Found:
    """Grant another lane, or none. Who has registered a lane stays in that one.

    Posts that waited because of the old lane are withdrawn, and the newest that nobody has acked in the new one
    are delivered.
    """
    granted_lane = validation.name(lane, "lane") if lane is not None else None
    place = roster.enter(conn, project_id)
    found = _member(conn, project_id, who)
    if found.lane == granted_lane:
        return found
    registered = conn.maybe(
        "SELECT lane FROM presence WHERE project_id = %s AND participation_id = %s AND lane IS NOT NULL",
        (project_id, found.participation_id),
    )
    if registered is None and found.lane is not None:
        conn.maybe("SELECT bus_leave_lane(%s, %s, %s)", (project_id, found.participation_id, found.lane))
    conn.run(sa.update(participation).where(participation.c.id == found.participation_id).values(lane=granted_lane))
    if registered is None:
        _join_own_lane(conn, project_id, found.participation_id)
    audit.record(
        conn, place.owner_id, actor, "participation.lane", found.actor, project_id=project_id, lane=granted_lane
    )
    return found


def _member(conn: Connection, project_id: int, who: str | int) -> Found:
    """As `members.get`, for what is done to those who hold tokens: the owner has none, and nobody mints one for it."""
    found = members.get(conn, project_id, who)
    if found.is_owner:
        raise BusError("forbidden", f"{found.actor} is the project's owner, who acts in the web and has no token.")
    return found


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
