"""Import of owners, projects, participants and participations of the original.

Each step finds what an earlier run has created: owners by e-mail address, projects by their former id and time of
creation, participants by name.
"""

from dataclasses import dataclass, field

import sqlalchemy as sa

from bus.auth.tables import identity
from bus.db import Connection
from bus.errors import InvalidArgument
from bus.imports import original_rows as rows
from bus.imports.findings import Findings
from bus.imports.original_source import OriginalSource
from bus.imports.original_values import clean_label, clip
from bus.imports.tables import project_import
from bus.rules import validation
from bus.rules.enums import PARTICIPANT_KINDS
from bus.tenancy import audit, owners
from bus.tenancy.tables import owner, participant, participant_name, participation, project, project_clock

ACTOR = "import"
_ISSUERS = {"google": "https://accounts.google.com", "github": "https://github.com"}
_SUSPENDED = "suspended in the original"


@dataclass(slots=True)
class ImportedOwner:
    """An owner here, and its participants by their id in the original."""

    id: int
    handle: str
    participants: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImportedProject:
    """A project here whose import is not complete.

    Attributes:
        original_id: its id in the original.
        owner_participation: that of the owner, who acts in the web.
        participations: ids here by ids there.
        former: ids here of removed participants, by the name under which they acted.
        rows_read: how many rows of the ledger an earlier run has imported.
    """

    id: int
    original_id: int
    name: str
    owner: ImportedOwner
    owner_participation: int
    participations: dict[int, int]
    former: dict[str | None, int]
    rows_read: int

    def find_participation(self, original_id: int | None, actor_name: str | None) -> int | None:
        """Return the participation here of a participation there, or else of a removed participant's name."""
        if original_id is not None and original_id in self.participations:
            return self.participations[original_id]
        return self.former.get(actor_name)


def import_owner(
    conn: Connection, row: rows.OwnerRow, identities: list[rows.IdentityRow], findings: Findings
) -> ImportedOwner:
    """Return the owner with this e-mail address, created if there is none, with its accounts at providers."""
    try:
        address = validation.email(row.email.strip(), "email")
    except InvalidArgument:
        address = f"owner-{row.id}@imported.invalid"
        findings.add("an owner without a valid e-mail address gets one that receives nothing", row.email)
    existing = conn.execute(
        sa.select(owner.c.id, owner.c.handle).where(sa.func.lower(owner.c.email) == address.lower())
    ).one_or_none()
    if existing is not None:
        imported = ImportedOwner(existing.id, existing.handle)
    else:
        imported = _insert_owner(conn, row, address, findings)
    for account in identities:
        _link_identity(conn, imported, account, findings, is_new=existing is None)
    return imported


def _insert_owner(conn: Connection, row: rows.OwnerRow, address: str, findings: Findings) -> ImportedOwner:
    handle = _choose_handle(conn, row, address, findings)
    reason = owners.CREDITS_EXHAUSTED if row.delinquent_since is not None else _SUSPENDED
    owner_id = conn.execute(
        sa.insert(owner)
        .values(
            email=address,
            handle=handle,
            operator=row.is_operator,
            created_at=row.created_at,
            suspended_at=row.suspended_at,
            suspended_reason=None if row.suspended_at is None else reason,
        )
        .returning(owner.c.id)
    ).scalar_one()
    audit.record(conn, owner_id, ACTOR, "owner.add", handle, operator=row.is_operator)
    if row.token_balance:
        findings.add("credits are not imported; an operator grants them", f"{handle}: {row.token_balance}")
    if row.plan != "free":
        findings.add("plans are not imported; choose them on the owner's page", f"{handle}: {row.plan}")
    return ImportedOwner(owner_id, handle)


def _choose_handle(conn: Connection, row: rows.OwnerRow, address: str, findings: Findings) -> str:
    wanted = (row.username or "").lower()
    try:
        handle = validation.handle(wanted, "handle")
    except InvalidArgument:
        handle = ""
    if handle and not conn.execute(sa.select(owner.c.id).where(owner.c.handle == handle)).one_or_none():
        return handle
    suggested = owners.suggest_handle(conn, f"{handle}@x" if handle else address)
    if wanted:
        findings.add("a handle that is taken or not allowed here is replaced", f"{row.username} by {suggested}")
    return suggested


def _link_identity(
    conn: Connection, imported: ImportedOwner, row: rows.IdentityRow, findings: Findings, *, is_new: bool
) -> None:
    """Let an owner sign in with an account; not one that existed, whose address the original may not have verified."""
    issuer = _ISSUERS.get(row.provider)
    if issuer is None:
        findings.add("accounts at a provider that is not known are left out", row.provider)
        return
    linked = conn.execute(
        sa.select(identity.c.owner_id).where(identity.c.issuer == issuer, identity.c.subject == row.provider_subject)
    ).scalar_one_or_none()
    if linked is None and not is_new:
        findings.add(
            "an account at a provider is not added to an owner who exists here and can add it after signing in",
            imported.handle,
        )
    elif linked is None:
        conn.execute(
            sa.insert(identity).values(
                owner_id=imported.id,
                issuer=issuer,
                subject=row.provider_subject,
                email=row.email,
                created_at=row.created_at,
            )
        )
        audit.record(conn, imported.id, ACTOR, "identity.link", issuer)
    elif linked != imported.id:
        findings.add("an account at a provider belongs to another owner here and is left out", imported.handle)


def import_participants(
    conn: Connection, imported: ImportedOwner, participants: list[rows.ParticipantRow], findings: Findings
) -> None:
    """Find or create the participants of an owner, by name; a name that another one has or had gets a number."""
    conn.execute(sa.select(owner.c.id).where(owner.c.id == imported.id).with_for_update(key_share=True))
    used: set[int] = set()
    for row in participants:
        label = clean_label(row.name)
        if label != row.name:
            findings.add("a participant's name with characters that names may not have is changed", row.name)
        kind = row.kind if row.kind in PARTICIPANT_KINDS else "agent"
        number = 1
        while True:
            candidate = label if number == 1 else f"{label[:60]}-{number}"
            participant_id = _find_or_insert(conn, imported, candidate, kind, row, used)
            if participant_id is not None:
                break
            number += 1
        if number > 1:
            findings.add("a participant's name that is taken here gets a number", f"{label}: {candidate}")
        used.add(participant_id)
        imported.participants[row.id] = participant_id


def _find_or_insert(
    conn: Connection, imported: ImportedOwner, label: str, kind: str, row: rows.ParticipantRow, used: set[int]
) -> int | None:
    """Return the participant with this name, created if the name is new; None if the name is not free for it."""
    key = validation.label_key(label)
    if key == imported.handle:
        return None
    named = conn.execute(
        sa.select(participant.c.id, participant.c.label, participant.c.removed_at)
        .join(participant_name, participant_name.c.participant_id == participant.c.id)
        .where(participant_name.c.owner_id == imported.id, participant_name.c.label_key == key)
    ).one_or_none()
    if named is None:
        return _insert_participant(conn, imported, label, kind=kind, created_at=row.created_at)
    is_free = named.removed_at is None and validation.label_key(named.label) == key and named.id not in used
    return int(named.id) if is_free else None


def _insert_participant(conn: Connection, imported: ImportedOwner, label: str, **values: object) -> int:
    participant_id = conn.execute(
        sa.insert(participant).values(owner_id=imported.id, label=label, **values).returning(participant.c.id)
    ).scalar_one()
    conn.execute(
        sa.insert(participant_name).values(
            owner_id=imported.id, label_key=validation.label_key(label), participant_id=participant_id
        )
    )
    return int(participant_id)


def is_imported(conn: Connection, imported: ImportedOwner, row: rows.ProjectRow) -> bool:
    """Return whether the import of a project is complete."""
    known = _find_project(conn, imported, row)
    return known is not None and known.finished_at is not None


def find_project_id(conn: Connection, imported: ImportedOwner, row: rows.ProjectRow) -> int | None:
    """Return the id here of a project of the original, or None."""
    known = _find_project(conn, imported, row)
    return None if known is None else int(known.id)


def _find_project(
    conn: Connection, imported: ImportedOwner, row: rows.ProjectRow
) -> sa.Row[*tuple[object, ...]] | None:
    return conn.execute(
        sa.select(project.c.id, project.c.name, project_import.c.rows_read, project_import.c.finished_at)
        .join(project_import, project_import.c.project_id == project.c.id)
        .where(
            project.c.owner_id == imported.id,
            project.c.purging_at.is_(None),
            project_import.c.original_id == row.id,
            project.c.created_at == row.created_at,
        )
    ).one_or_none()


def begin_project(
    conn: Connection, source: OriginalSource, imported: ImportedOwner, row: rows.ProjectRow, findings: Findings
) -> ImportedProject:
    """Find or create a project, archived until its import is complete, with its participations."""
    known = _find_project(conn, imported, row)
    if known is None:
        project_id, rows_read = create_project(conn, imported, row, findings), 0
    else:
        project_id, rows_read = int(known.id), int(known.rows_read)
    name = conn.execute(sa.select(project.c.name).where(project.c.id == project_id)).scalar_one()
    conn.enter_project(project_id)
    participations = {
        grant.id: _insert_participation(
            conn,
            project_id,
            imported.participants[grant.participant_id],
            lane=clip(grant.lane, 64, findings, "a lane"),
            is_admin=grant.is_admin,
            created_at=grant.created_at,
        )
        for grant in source.list_participations(row.id)
        if grant.participant_id in imported.participants
    }
    former = {
        former_name: _find_former_participation(conn, imported, project_id, former_name)
        for former_name in source.list_former_names(row.id)
    }
    if former:
        findings.add("participants that were deleted come back as removed ones, with their names", next(iter(former)))
    owner_participation = _find_former_participation(conn, imported, project_id, imported.handle)
    return ImportedProject(project_id, row.id, name, imported, owner_participation, participations, former, rows_read)


def create_project(conn: Connection, imported: ImportedOwner, row: rows.ProjectRow, findings: Findings) -> int:
    """Create a project of the original, archived and with an empty ledger; return its id."""
    label = _choose_project_name(conn, imported, row)
    if label != row.name:
        findings.add("a project's name that is taken or not allowed here is replaced", f"{row.name} by {label}")
    project_id = int(
        conn.execute(
            sa.insert(project)
            .values(
                owner_id=imported.id,
                name=label,
                name_key=validation.label_key(label),
                presence_window_seconds=min(max(row.liveness_window_sec, 60), 86_400),
                created_at=row.created_at,
                archived_at=sa.func.clock_timestamp(),
            )
            .returning(project.c.id)
        ).scalar_one()
    )
    conn.enter_project(project_id)
    conn.execute(sa.insert(project_clock).values(project_id=project_id, last_at=row.created_at, closed=True))
    conn.execute(sa.insert(project_import).values(project_id=project_id, original_id=row.id))
    # What happened in the original was billed there.
    conn.execute("INSERT INTO meter_mark (project_id, metered_seq) VALUES (%s, 0)", (project_id,))
    audit.record(conn, imported.id, ACTOR, "project.import", label, project_id=project_id, original_id=row.id)
    return project_id


def _choose_project_name(conn: Connection, imported: ImportedOwner, row: rows.ProjectRow) -> str:
    taken = set(conn.execute(sa.select(project.c.name_key).where(project.c.owner_id == imported.id)).scalars())
    slug = clean_label(row.slug)
    for name in (row.name, slug, *(f"{slug[:58]}-{number}" for number in range(2, len(taken) + 3))):
        try:
            label = validation.label(name, "name")
        except InvalidArgument:
            continue
        if validation.label_key(label) not in taken:
            return label
    raise AssertionError("one of the numbers is free")


def _insert_participation(conn: Connection, project_id: int, participant_id: int, **values: object) -> int:
    known = conn.execute(
        sa.select(participation.c.id).where(
            participation.c.project_id == project_id, participation.c.participant_id == participant_id
        )
    ).scalar_one_or_none()
    if known is not None:
        return int(known)
    inserted = sa.insert(participation).values(project_id=project_id, participant_id=participant_id, **values)
    return int(conn.execute(inserted.returning(participation.c.id)).scalar_one())


def _find_former_participation(
    conn: Connection, imported: ImportedOwner, project_id: int, actor_name: str | None
) -> int:
    """Return the participation of an actor that the original deleted, created as a removed one."""
    label = clean_label(actor_name or "unnamed")
    key = validation.label_key(label)
    if key == imported.handle:
        # The owner's own participant has no label.
        label = key = ""
    participant_id = conn.execute(
        sa.select(participant_name.c.participant_id).where(
            participant_name.c.owner_id == imported.id, participant_name.c.label_key == key
        )
    ).scalar_one_or_none()
    removed_at = None if label == "" else sa.func.clock_timestamp()
    if participant_id is None:
        kind = "human" if label == "" else "agent"
        participant_id = _insert_participant(conn, imported, label, kind=kind, removed_at=removed_at)
    return _insert_participation(conn, project_id, participant_id, is_admin=label == "", removed_at=removed_at)
