"""Verification of an import: the counts, and the next number of each sequence."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bus import limits
from bus.db import Connection
from bus.errors import BusError
from bus.imports.original_source import OriginalSource
from bus.imports.original_tenancy import ImportedProject


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows of each kind a project has."""

    events: int
    posts: int
    tasks: int
    sequences: int
    tokens: int


def verify_counts(conn: Connection, project_id: int, counts: Counts, project: str) -> int:
    """Check that a project which is completely imported still has what was imported.

    Returns:
        How many events the original has written since.
    Raises:
        BusError: `conflict` when rows are missing.
    """
    (events,) = conn.fetch_one(
        "SELECT count(*) FROM imported_id WHERE project_id = %s AND kind = 'event'", (project_id,)
    )
    if events > counts.events:
        raise BusError(
            "conflict", f"{project} was imported with {events} events, and the original has {counts.events} of them."
        )
    return int(counts.events - events)


def verify_project(
    conn: Connection, source: OriginalSource, project: ImportedProject, counts: Counts, left_out: Mapping[str, int]
) -> None:
    """Compare a project with the original before it opens.

    Args:
        left_out: how many rows of a kind were left out on purpose.
    Raises:
        BusError: `conflict`, with all differences.
    """
    differences = [
        *_compare_counts(conn, source, project, counts, left_out),
        *_compare_next_numbers(conn, source, project),
    ]
    last_seq, count = conn.fetch_one(
        "SELECT c.last_seq, (SELECT count(*) FROM event e WHERE e.project_id = c.project_id) FROM project_clock c"
        " WHERE c.project_id = %s",
        (project.id,),
    )
    if last_seq != count:
        differences.append(f"the ledger has {count} events and ends at {last_seq}")
    if differences:
        raise BusError(
            "conflict",
            f"The import of {project.name} does not agree with the original ({'; '.join(differences)})."
            " Did the original still run? Stop it, delete the project here and import again.",
        )


def _compare_counts(
    conn: Connection, source: OriginalSource, project: ImportedProject, counts: Counts, left_out: Mapping[str, int]
) -> Iterator[str]:
    here = conn.fetch_one_as(
        Counts,
        "SELECT (SELECT count(*) FROM imported_id i WHERE i.project_id = %(project)s AND i.kind = 'event') AS events,"
        " (SELECT count(*) FROM post o WHERE o.project_id = %(project)s) AS posts,"
        " (SELECT count(*) FROM task t WHERE t.project_id = %(project)s) AS tasks,"
        " (SELECT count(*) FROM sequence s WHERE s.project_id = %(project)s) AS sequences,"
        " (SELECT count(*) FROM token t JOIN participation p ON p.id = t.participation_id"
        "  WHERE p.project_id = %(project)s AND t.legacy) AS tokens",
        {"project": project.id},
    )
    for noun in Counts.__dataclass_fields__:
        expected = getattr(counts, noun) - left_out.get(noun, 0)
        if expected != getattr(here, noun):
            yield f"{noun}: {expected} there, {getattr(here, noun)} here"
    acks = {
        (post_id, project.find_participation(participation_id, actor_name))
        for post_id, participation_id, actor_name in source.read_ackers(project.original_id)
    }
    (acked,) = conn.fetch_one(
        "SELECT count(*) FROM delivery d WHERE d.project_id = %s AND d.acked_at IS NOT NULL", (project.id,)
    )
    if len(acks) != acked:
        yield f"acks: {len(acks)} there, {acked} here"


def _compare_next_numbers(conn: Connection, source: OriginalSource, project: ImportedProject) -> Iterator[str]:
    rows = conn.fetch_all("SELECT s.name, s.current + 1 FROM sequence s WHERE s.project_id = %s", (project.id,))
    next_numbers: dict[str, int] = dict(rows)
    for row in source.list_sequences(project.original_id):
        # A name that is not allowed here has another one, which the findings name.
        next_number = next_numbers.get(row.name, row.current + 1)
        if next_number != row.current + 1 and 0 <= row.current <= limits.MAX_INTEGER:
            yield f"sequence {row.name}: the next claim is {row.current + 1} there, {next_number} here"
