"""Import of a database of the original: idempotent, resumable after a kill, verified before a project opens.

A project is imported in transactions of bounded size: its participations; its ledger in batches, each with the mark
that says how far it came; then everything that is in force, the verification and the opening in one. Until then it is
archived, so that nothing else is written to it.
Source: docs/decisions/0045-import-from-the-original.md
"""

from collections.abc import Callable
from dataclasses import dataclass

from bus.db import Connection
from bus.errors import BusError
from bus.imports import original_ledger, original_state, original_tenancy
from bus.imports import original_rows as rows
from bus.imports.findings import Finding, Findings
from bus.imports.original_source import OriginalSource
from bus.imports.original_tasks import import_tasks
from bus.imports.original_tenancy import ImportedOwner, ImportedProject
from bus.imports.original_verification import Counts, verify_counts, verify_project
from bus.imports.transactions import Transactions
from bus.tenancy import audit

Progress = Callable[[str, int, int], None]
# An import of a large project verifies and opens it in one transaction.
_FINISH_TIMEOUT = "10min"


@dataclass(frozen=True, slots=True)
class ProjectReport:
    """The import of one project.

    Attributes:
        project: `owner/name`.
        state: `imported`, `resumed` if an earlier run had begun it, `unchanged` if an earlier run had completed it.
        counts: what the original has.
        newer_events: events that the original has written since an earlier run completed the project; not imported.
    """

    project: str
    state: str
    counts: Counts
    newer_events: int = 0


@dataclass(frozen=True, slots=True)
class ImportReport:
    """The result of an import, which has verified every project."""

    owners: int
    projects: list[ProjectReport]
    findings: list[Finding]


def import_all(
    source: OriginalSource, transactions: Transactions, *, progress: Progress = lambda *_: None
) -> ImportReport:
    """Import every owner and project of the original that is not imported yet.

    Args:
        transactions: opens a transaction; all of them may be parts of one that the caller rolls back.
        progress: called with the project, and how many of how many rows of its ledger are imported.
    Raises:
        BusError: `conflict` where the result does not agree with the original; that project stays archived.
    """
    findings = Findings()
    identities = source.list_identities()
    participants = source.list_participants()
    imported_owners: dict[int, ImportedOwner] = {}
    for owner_row in source.list_owners():
        with transactions() as conn:
            conn.enter_all_projects()
            accounts = [account for account in identities if account.owner_id == owner_row.id]
            imported = original_tenancy.import_owner(conn, owner_row, accounts, findings)
            own_participants = [row for row in participants if row.owner_id == owner_row.id]
            original_tenancy.import_participants(conn, imported, own_participants, findings)
        imported_owners[owner_row.id] = imported
    reports = [
        _import_project(source, transactions, imported_owners[row.owner_id], row, findings, progress)
        for row in source.list_projects()
    ]
    return ImportReport(len(imported_owners), reports, findings.list_all())


def _import_project(
    source: OriginalSource,
    transactions: Transactions,
    imported: ImportedOwner,
    row: rows.ProjectRow,
    findings: Findings,
    progress: Progress,
) -> ProjectReport:
    counts = Counts(*source.count(row.id))
    findings.project = f"{imported.handle}/{row.name}"
    findings.left_out.clear()
    with transactions() as conn:
        conn.enter_all_projects()
        project_id = original_tenancy.find_project_id(conn, imported, row)
        if project_id is not None and original_tenancy.is_imported(conn, imported, row):
            newer_events = verify_counts(conn, project_id, counts, findings.project)
            return ProjectReport(findings.project, "unchanged", counts, newer_events)
        project = original_tenancy.begin_project(conn, source, imported, row, findings)
    findings.project = f"{imported.handle}/{project.name}"
    for problem, count, example in source.find_damage(row.id):
        findings.add(problem, example, count)
    _import_ledger(source, transactions, project, counts, findings, progress)
    with transactions() as conn:
        _finish_project(conn, source, project, counts, findings)
    return ProjectReport(findings.project, "imported" if project_id is None else "resumed", counts)


def _import_ledger(
    source: OriginalSource,
    transactions: Transactions,
    project: ImportedProject,
    counts: Counts,
    findings: Findings,
    progress: Progress,
) -> None:
    with transactions() as conn:
        conn.enter_project(project.id)
        post_numbers = original_ledger.load_post_numbers(conn, project.id)
        last_imported = original_ledger.find_last_imported(conn, project.id)
    done = project.rows_read
    # The last row of an earlier run is read again, to see that it is still in its place.
    for batch in source.read_ledger(project.original_id, max(done - 1, 0), original_ledger.BATCH_SIZE):
        if last_imported is not None:
            last = batch.pop(0)
            if (last.event_id, last.post_id) != last_imported:
                raise BusError(
                    "conflict",
                    f"The original has changed since the import of {project.name} was interrupted. Stop it, delete the"
                    " project here and import again.",
                )
            last_imported = None
        if not batch:
            continue
        with transactions() as conn:
            conn.enter_project(project.id)
            original_ledger.import_batch(conn, source, project, batch, post_numbers, findings)
        done += len(batch)
        progress(findings.project, done, counts.events)


def _finish_project(
    conn: Connection, source: OriginalSource, project: ImportedProject, counts: Counts, findings: Findings
) -> None:
    """Import what is in force, verify the project and open it, all or nothing."""
    conn.execute(f"SET LOCAL statement_timeout = '{_FINISH_TIMEOUT}'")
    conn.execute("SELECT bus_lock_clock(%s)", (project.id,))
    import_tasks(conn, source, project, findings)
    original_state.import_sequences(conn, source, project, findings)
    original_state.import_leases(conn, source, project, findings)
    original_state.import_presence(conn, source, project, findings)
    original_state.import_cursors(conn, source, project)
    original_state.import_tokens(conn, source, project, findings)
    original_state.import_invites(conn, source, project, findings)
    verify_project(conn, source, project, counts, findings.left_out)
    conn.execute(
        "UPDATE meter_mark m SET metered_seq = c.last_seq, started_seq = c.last_seq FROM project_clock c"
        " WHERE m.project_id = %(project)s AND c.project_id = %(project)s",
        {"project": project.id},
    )
    finished = conn.execute(
        "UPDATE project_import i SET last_seq = c.last_seq, finished_at = clock_timestamp() FROM project_clock c"
        " WHERE i.project_id = %(project)s AND c.project_id = %(project)s AND i.finished_at IS NULL",
        {"project": project.id},
    )
    if not finished:
        raise BusError("conflict", f"Another import has completed {findings.project}. Run the import again.")
    conn.execute("UPDATE project_clock SET closed = false WHERE project_id = %s", (project.id,))
    conn.execute("UPDATE project SET archived_at = NULL WHERE id = %s", (project.id,))
    audit.record(conn, project.owner.id, original_tenancy.ACTOR, "project.reopen", project.name, project_id=project.id)
    # The first reports read the rows that have just been written.
    conn.notify_on_commit(project.id, "ledger")
