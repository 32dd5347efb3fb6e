"""Checks of all responses against the database after a run. A wrong response ends the benchmark."""

from collections import defaultdict
from collections.abc import Collection, Iterable

from bus.db import Connection, Database

ClaimedNumbers = dict[tuple[int, str], list[int]]
"""Claimed numbers by project and sequence."""


class IncorrectResponseError(Exception):
    """A response was wrong, or its effect is missing from the database, so the measurement is invalid."""


def require(condition: bool, message: str) -> None:
    """Raise IncorrectResponseError with the message unless the condition holds."""
    if not condition:
        raise IncorrectResponseError(message)


def verify_claims(database: Database, claimed: ClaimedNumbers) -> int:
    """Verify that the claimed numbers are distinct and gap-free, and that the ledger has one event for each.

    Args:
        claimed: all numbers that were ever claimed from these sequences, in any order.

    Returns:
        The number of checked numbers.
    """
    total = 0
    with database.connection() as conn:
        for (project_id, sequence), numbers in claimed.items():
            where = f"sequence {sequence} of project {project_id}"
            expected = list(range(1, len(numbers) + 1))
            require(sorted(numbers) == expected, f"{where}: numbers repeat or have gaps ({len(numbers)} claims)")
            (current,) = conn.fetch_one(
                "SELECT coalesce(max(current), 0) FROM sequence WHERE project_id = %s AND name = %s",
                (project_id, sequence),
            )
            require(current == len(numbers), f"{where}: {len(numbers)} claims, but the counter is at {current}")
            events, first, last = conn.fetch_one(
                "SELECT count(DISTINCT e.number), coalesce(min(e.number), 1), coalesce(max(e.number), 0) FROM"
                " (SELECT (payload ->> 'number')::bigint AS number FROM event"
                "  WHERE project_id = %s AND type = 'claim' AND payload ->> 'sequence' = %s) AS e",
                (project_id, sequence),
            )
            require(
                (events, first, last) == (len(numbers), 1, len(numbers)),
                f"{where}: the ledger holds {events} claims from {first} to {last} instead of {len(numbers)}",
            )
            total += len(numbers)
    return total


def verify_ledgers(database: Database, project_ids: Iterable[int]) -> int:
    """Verify that the ledgers have no gaps, that their clocks match, and that their times do not decrease.

    Returns:
        The number of checked events.
    """
    total = 0
    with database.connection() as conn:
        for project_id in sorted(set(project_ids)):
            total += _verify_ledger(conn, project_id)
    return total


def _verify_ledger(conn: Connection, project_id: int) -> int:
    events, first, last, last_seq, out_of_order = conn.fetch_one(
        "SELECT count(*), coalesce(min(e.seq), 1), coalesce(max(e.seq), 0),"
        " (SELECT c.last_seq FROM project_clock c WHERE c.project_id = %(project)s),"
        " count(*) FILTER (WHERE e.at < e.before) FROM"
        " (SELECT seq, at, lag(at) OVER (ORDER BY seq) AS before FROM event WHERE project_id = %(project)s) AS e",
        {"project": project_id},
    )
    require(
        (first, last, last_seq) == (1, events, events),
        f"ledger of project {project_id}: {events} events from {first} to {last}, its clock is at {last_seq}",
    )
    require(out_of_order == 0, f"ledger of project {project_id}: time goes backwards at {out_of_order} events")
    return int(events)


def verify_posts(
    database: Database,
    recipients_by_post: dict[tuple[int, int], int],
    acked_posts: set[tuple[int, int, int]],
    existing_posts: Collection[tuple[int, int]] = (),
) -> int:
    """Verify that exactly the confirmed posts exist, with their deliveries, and exactly the confirmed acks.

    Args:
        recipients_by_post: the number of recipients of each confirmed post, by project and post id.
        acked_posts: project, participation and post id of each confirmed ack.
        existing_posts: posts that existed before, by project and id.

    Returns:
        The number of checked posts.
    """
    by_project: dict[int, dict[int, int]] = defaultdict(dict)
    for (project_id, post_id), recipients in recipients_by_post.items():
        by_project[project_id][post_id] = recipients
    with database.connection() as conn:
        for project_id, expected in by_project.items():
            rows = conn.fetch_all(
                "SELECT o.id, o.recipients, (SELECT count(*) FROM delivery d"
                " WHERE d.project_id = o.project_id AND d.post_id = o.id AND d.addressed) FROM post o"
                " WHERE o.project_id = %s",
                (project_id,),
            )
            stored = {
                post_id: recipients for post_id, recipients, _ in rows if (project_id, post_id) not in existing_posts
            }
            require(
                stored == expected,
                f"posts of project {project_id}: {len(expected)} confirmed, {len(stored)} stored,"
                f" lost {sorted(expected.keys() - stored.keys())[:5]}",
            )
            require(
                all(recipients == deliveries for _, recipients, deliveries in rows),
                f"posts of project {project_id}: recipients and deliveries differ",
            )
            stored_acks = {
                (project_id, participation_id, post_id)
                for participation_id, post_id in conn.fetch_all(
                    "SELECT participation_id, post_id FROM delivery WHERE project_id = %s AND acked_at IS NOT NULL",
                    (project_id,),
                )
            }
            expected_acks = {ack for ack in acked_posts if ack[0] == project_id}
            require(
                stored_acks == expected_acks,
                f"acks of project {project_id}: {len(expected_acks)} confirmed, {len(stored_acks)} stored",
            )
    return len(recipients_by_post)
