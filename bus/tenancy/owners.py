"""Owners: the persons who own projects and participants and are billed."""

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from bus import limits
from bus.db import Connection, from_row
from bus.errors import BusError, NotFound
from bus.rules import validation
from bus.tenancy import audit
from bus.tenancy.lookalikes import find_lookalike
from bus.tenancy.tables import owner, owner_handle, participant_name

CREDITS_EXHAUSTED = "credits"
"""The reason of a suspension that new credits lift; those of an operator have other reasons."""


@dataclass(frozen=True, slots=True)
class Owner:
    """An owner; `email` is private, `handle` is public and globally unique."""

    id: int
    email: str
    handle: str
    operator: bool
    created_at: datetime
    suspended_at: datetime | None

    @property
    def may_operate(self) -> bool:
        """Whether the owner has access to the operator console, which a suspension takes away."""
        return self.operator and self.suspended_at is None


_COLUMNS = (
    owner.c.id,
    owner.c.email,
    owner.c.handle,
    owner.c.operator,
    owner.c.created_at,
    owner.c.suspended_at,
)


def add(conn: Connection, email: str, *, handle: str | None = None, operator: bool = False, actor: str) -> Owner:
    """Create an owner.

    Args:
        handle: the public name; suggested from the e-mail address when left out.
    Raises:
        BusError: `conflict` when the e-mail or the handle is taken; `invalid_argument` when one is malformed.
    """
    address = validation.email(email, "email")
    chosen = suggest_handle(conn, address) if handle is None else validation.handle(handle, "handle")
    row = conn.execute(
        sa.insert(owner).values(email=address, handle=chosen, operator=operator).returning(*_COLUMNS)
    ).one()
    created = from_row(Owner, row)
    audit.record(conn, created.id, actor, "owner.add", created.handle, operator=operator)
    return created


def suggest_handle(conn: Connection, email: str) -> str:
    """Suggest a free handle from the local part of an e-mail address."""
    plain = unicodedata.normalize("NFKD", email.partition("@")[0]).encode("ascii", "ignore").decode()
    base = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:56].strip("-") or "owner"
    if base in validation.RESERVED_HANDLES:
        base = f"{base}-1"
    similar = sa.select(owner_handle.c.handle).where(
        sa.or_(owner_handle.c.handle == base, owner_handle.c.handle.like(f"{base}-%"))
    )
    taken = {handle for (handle,) in conn.execute(similar)}
    if base not in taken:
        return base
    return next(f"{base}-{number}" for number in range(2, len(taken) + 3) if f"{base}-{number}" not in taken)


def get(conn: Connection, handle_or_email: str) -> Owner:
    """Return the owner with this handle, present or former, or e-mail address.

    Raises:
        BusError: `not_found`; `invalid_argument` when the value can be neither.
    """
    validation.name(handle_or_email, "owner", 254)
    row = conn.execute(
        sa.select(*_COLUMNS).where(
            sa.or_(
                owner.c.id == owner_id_of_handle(handle_or_email.lower()),
                sa.func.lower(owner.c.email) == handle_or_email.lower(),
            )
        )
    ).one_or_none()
    if row is None:
        raise BusError("not_found", f"There is no owner {handle_or_email}.", hint="list_owners")
    return from_row(Owner, row)


def owner_id_of_handle(handle: str) -> sa.ScalarSelect[int]:
    """The id of the owner who has or had a handle, as a subquery."""
    return sa.select(owner_handle.c.owner_id).where(owner_handle.c.handle == handle).scalar_subquery()


def list_former_handles(conn: Connection, owner_id: int) -> list[str]:
    """List the former handles of an owner, newest first; there are few (`MAX_OWNER_HANDLES`)."""
    query = (
        sa.select(owner_handle.c.handle)
        .join(owner, owner.c.id == owner_handle.c.owner_id)
        .where(owner_handle.c.owner_id == owner_id, owner_handle.c.handle != owner.c.handle)
        .order_by(owner_handle.c.created_at.desc(), owner_handle.c.handle)
    )
    return [handle for (handle,) in conn.execute(query)]


def list_former_handles_of(conn: Connection, handle: str) -> frozenset[str]:
    """The handles that the owner with this present handle had before."""
    rows = conn.fetch_all(
        "SELECT h.handle FROM owner o JOIN owner_handle h ON h.owner_id = o.id AND h.handle <> o.handle"
        " WHERE o.handle = %s",
        (handle,),
    )
    return frozenset(former for (former,) in rows)


def has_or_had_handle(conn: Connection, owner_id: int, name_key: str) -> bool:
    """Whether a name is a handle of the owner, present or former; a participant of the owner may not bear it."""
    query = sa.select(sa.literal(1)).where(owner_handle.c.owner_id == owner_id, owner_handle.c.handle == name_key)
    return conn.execute(query).one_or_none() is not None


def lock_names(conn: Connection, owner_id: int, *, changes_handle: bool = False) -> str:
    """Lock what serialises a change of an owner's names with the names of others in its projects; return the handle.

    Who adds a participant or a person to a project locks the project's owner, so the owners of all projects in which
    this one has a role are locked, too.

    Args:
        changes_handle: whether the handle will be changed, which excludes rows that refer to the owner, too.
    Raises:
        BusError: `not_found`; `conflict` when the owner became a member of another project meanwhile.
    Locks: the owner and those of its projects, by ascending id.
    """
    handles: dict[int, str] = {}
    for locked_id in sorted({owner_id, *_list_hosts(conn, owner_id)}):
        # Others' acts that only refer to a host go on.
        is_weak = not (changes_handle and locked_id == owner_id)
        query = sa.select(owner.c.handle).where(owner.c.id == locked_id).with_for_update(key_share=is_weak)
        handle = conn.execute(query).scalar_one_or_none()
        if handle is None:
            raise NotFound("owner")
        handles[locked_id] = str(handle)
    if not handles.keys() >= _list_hosts(conn, owner_id):
        raise BusError("conflict", "You joined a project at this moment; try again.")
    return handles[owner_id]


def _list_hosts(conn: Connection, owner_id: int) -> set[int]:
    """The owners of the projects in which an owner is a member."""
    rows = conn.fetch_all(
        "SELECT DISTINCT pj.owner_id FROM membership m JOIN project pj ON pj.id = m.project_id WHERE m.owner_id = %s",
        (owner_id,),
    )
    return {host_id for (host_id,) in rows}


def rename(conn: Connection, owner_id: int, handle: str, *, actor: str) -> bool:
    """Change the handle of an owner. The old one stays reserved for the owner and still finds it.

    Past events and audit entries keep the name of their time. The owner may return to a former handle.

    Returns:
        Whether anything changed.
    Raises:
        BusError: `conflict` when the handle is or was that of another owner, when a participant of the owner bears or
            bore the name, when it looks like a name in a project that the owner joined, or when the owner has had
            `MAX_OWNER_HANDLES` handles; `invalid_argument` when it is malformed or reserved; `not_found`.
    Locks: as `lock_names`.
    """
    chosen = validation.handle(handle.strip().lower(), "handle")
    before = lock_names(conn, owner_id, changes_handle=True)
    if chosen == before:
        return False
    if not has_or_had_handle(conn, owner_id, chosen):
        if len(list_former_handles(conn, owner_id)) + 1 >= limits.MAX_OWNER_HANDLES:
            raise BusError(
                "conflict",
                f"An owner has at most {limits.MAX_OWNER_HANDLES} handles over time, and all of yours are used;"
                " return to a former one.",
            )
        # Readers could not tell the owner, who acts under the handle alone, from that participant.
        named = sa.select(sa.literal(1)).where(
            participant_name.c.owner_id == owner_id, participant_name.c.label_key == chosen
        )
        if conn.execute(named).one_or_none() is not None:
            raise BusError(
                "conflict",
                f"The name {chosen} belongs or belonged to a participant of yours; choose another handle.",
                reason="name_taken",
            )
        if conn.fetch_one_or_none(
            "SELECT 1 FROM bus_projects_of(%s) mine"
            " JOIN participation p ON p.project_id = mine.project_id AND p.removed_at IS NULL"
            " JOIN participant_name n ON n.participant_id = p.participant_id AND n.label_key = %s LIMIT 1",
            (owner_id, chosen),
        ):
            raise BusError(
                "conflict",
                f"A participant in one of your projects is called {chosen}; choose another handle.",
                reason="name_taken",
            )
    _refuse_lookalike(conn, owner_id, chosen)
    conn.execute(sa.update(owner).where(owner.c.id == owner_id).values(handle=chosen))
    audit.record(conn, owner_id, actor, "owner.rename", chosen, before=before)
    for project_id, host_id in conn.fetch_all(
        "SELECT pj.id, pj.owner_id FROM membership m JOIN project pj ON pj.id = m.project_id"
        " WHERE m.owner_id = %s AND pj.purging_at IS NULL ORDER BY pj.id",
        (owner_id,),
    ):
        # For the owners of the projects in which the handle is seen.
        audit.record(conn, host_id, actor, "owner.rename", chosen, project_id=project_id, before=before)
    _notify_projects(conn, owner_id)
    return True


def _refuse_lookalike(conn: Connection, owner_id: int, chosen: str) -> None:
    """Refuse a handle that looks like a name in a project of another owner, as joining there with it would be.

    Raises:
        BusError: `conflict`.
    """
    joined = conn.fetch_all("SELECT project_id FROM membership WHERE owner_id = %s", (owner_id,))
    name = find_lookalike(conn, [project_id for (project_id,) in joined], chosen, except_owner_id=owner_id)
    if name is not None:
        raise BusError(
            "conflict",
            f"{chosen} looks like {name}, a name in a project that you joined; choose another handle.",
            reason="name_taken",
        )


def list_owners(conn: Connection, *, after: int = 0, limit: int = 200) -> list[Owner]:
    """List owners by id, at most `limit`, with ids above `after`."""
    query = sa.select(*_COLUMNS).where(owner.c.id > after).order_by(owner.c.id).limit(limit)
    return [from_row(Owner, row) for row in conn.execute(query)]


def suspend(conn: Connection, owner_id: int, *, reason: str, actor: str) -> bool:
    """Suspend an owner. Calls with its tokens that start after the commit are refused.

    Returns:
        Whether anything changed.
    """
    validation.free_text(reason, "reason", limits.MAX_REASON_LENGTH)
    # A suspension by an operator replaces one that a top-up would lift.
    overrides = sa.and_(owner.c.suspended_reason == CREDITS_EXHAUSTED, sa.literal(reason != CREDITS_EXHAUSTED))
    changed = conn.execute(
        sa.update(owner)
        .where(owner.c.id == owner_id, sa.or_(owner.c.suspended_at.is_(None), overrides))
        .values(suspended_at=sa.func.clock_timestamp(), suspended_reason=reason)
        .returning(owner.c.handle)
    ).one_or_none()
    if changed is not None:
        audit.record(conn, owner_id, actor, "owner.suspend", changed.handle, reason=reason)
        _notify_projects(conn, owner_id)
    return changed is not None


def lift_suspension(
    conn: Connection, owner_id: int, *, actor: str, only_reason: str | None = None, note: str = ""
) -> bool:
    """Lift a suspension; return whether there was one.

    Args:
        only_reason: lift it only if this is its reason.
        note: why it is lifted, for the audit log.
    """
    validation.free_text(note, "reason", limits.MAX_REASON_LENGTH, 0)
    detail: dict[str, Any] = {"reason": note} if note else {}
    has_reason = sa.true() if only_reason is None else owner.c.suspended_reason == only_reason
    changed = conn.execute(
        sa.update(owner)
        .where(owner.c.id == owner_id, owner.c.suspended_at.is_not(None), has_reason)
        .values(suspended_at=None, suspended_reason=None)
        .returning(owner.c.handle)
    ).one_or_none()
    if changed is not None:
        audit.record(conn, owner_id, actor, "owner.lift", changed.handle, **detail)
        _notify_projects(conn, owner_id)
    return changed is not None


def set_operator(conn: Connection, owner_id: int, operator: bool, *, actor: str) -> bool:
    """Grant or withdraw access to the operator console, from the owner's next request on.

    Returns:
        Whether anything changed.
    """
    changed = conn.execute(
        sa.update(owner)
        .where(owner.c.id == owner_id, owner.c.operator != operator)
        .values(operator=operator)
        .returning(owner.c.handle)
    ).one_or_none()
    if changed is not None:
        audit.record(conn, owner_id, actor, "owner.operator", changed.handle, operator=operator)
    return changed is not None


def _notify_projects(conn: Connection, owner_id: int) -> None:
    for (project_id,) in conn.fetch_all("SELECT project_id FROM bus_projects_of(%s)", (owner_id,)):
        conn.notify_on_commit(project_id, "members")
