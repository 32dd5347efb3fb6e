"""Whether what was answered is true: compared with the database after a run. A wrong answer ends the benchmark."""

from collections import defaultdict
from collections.abc import Collection, Iterable

from bus.db import Connection, Database

ClaimedNumbers = dict[tuple[int, str], list[int]]
"""Claimed numbers by project and sequence."""


class IncorrectResponseError(Exception):
    """An answer was wrong, or something that was answered is not there: the measurement is worth nothing."""


def require(condition: bool, message: str) -> None:
    """Fail loudly where something is wrong."""
    if not condition:
        raise IncorrectResponseError(message)


def verify_claims(database: Database, claimed: ClaimedNumbers) -> int:
    """Numbers are distinct and gap-free over all answers, and the ledger has one event for each.

    Args:
        claimed: every number that was ever answered for these sequences, in any order.
    Returns:
        How many numbers were checked.
    """
    total = 0
    with database.connection() as conn:
        for (project_id, sequence), numbers in claimed.items():
            where = f"sequence {sequence} of project {project_id}"
            expected = list(range(1, len(numbers) + 1))
            require(sorted(numbers) == expected, f"{where}: numbers repeat or have gaps ({len(numbers)} answers)")
            (current,) = conn.fetch_one(
                "SELECT coalesce(max(current), 0) FROM sequence WHERE project_id = %s AND name = %s",
                (project_id, sequence),
            )
            require(current == len(numbers), f"{where}: {len(numbers)} answers, but its counter stands at {current}")
            events, least, most = conn.fetch_one(
                "SELECT count(DISTINCT e.number), coalesce(min(e.number), 1), coalesce(max(e.number), 0) FROM"
                " (SELECT (payload ->> 'number')::bigint AS number FROM event"
                "  WHERE project_id = %s AND type = 'claim' AND payload ->> 'sequence' = %s) AS e",
                (project_id, sequence),
            )
            require(
                (events, least, most) == (len(numbers), 1, len(numbers)),
                f"{where}: the ledger holds {events} claims from {least} to {most}, answered were {len(numbers)}",
            )
            total += len(numbers)
    return total


def verify_ledgers(database: Database, project_ids: Iterable[int]) -> int:
    """Ledgers have no holes, their clock stands at their end, and time rises with the numbers.

    Returns:
        How many events were checked.
    """
    total = 0
    with database.connection() as conn:
        for project_id in sorted(set(project_ids)):
            total += _verify_ledger(conn, project_id)
    return total


def _verify_ledger(conn: Connection, project_id: int) -> int:
    events, least, most, last_seq, late = conn.fetch_one(
        "SELECT count(*), coalesce(min(e.seq), 1), coalesce(max(e.seq), 0),"
        " (SELECT c.last_seq FROM project_clock c WHERE c.project_id = %(project)s),"
        " count(*) FILTER (WHERE e.at < e.before) FROM"
        " (SELECT seq, at, lag(at) OVER (ORDER BY seq) AS before FROM event WHERE project_id = %(project)s) AS e",
        {"project": project_id},
    )
    require(
        (least, most, last_seq) == (1, events, events),
        f"ledger of project {project_id}: {events} events from {least} to {most}, its clock stands at {last_seq}",
    )
    require(late == 0, f"ledger of project {project_id}: time runs backwards at {late} events")
    return int(events)


def verify_posts(
    database: Database,
    recipients_by_post: dict[tuple[int, int], int],
    acked_posts: set[tuple[int, int, int]],
    existing_posts: Collection[tuple[int, int]] = (),
) -> int:
    """Every post that was answered is there with its deliveries, and every ack stands. Nothing else is there.

    Args:
        posted: how many recipients were answered, by project and post id.
        acked: project, participation and post id of every ack that was answered.
        earlier: posts that were there before, by project and id.
    Returns:
        How many posts were checked.
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
            found = {
                post_id: recipients for post_id, recipients, _ in rows if (project_id, post_id) not in existing_posts
            }
            require(
                found == expected,
                f"posts of project {project_id}: {len(expected)} answered, {len(found)} there,"
                f" lost {sorted(expected.keys() - found.keys())[:5]}",
            )
            require(
                all(recipients == deliveries for _, recipients, deliveries in rows),
                f"posts of project {project_id}: recipients and deliveries differ",
            )
            stands = {
                (project_id, participation_id, post_id)
                for participation_id, post_id in conn.fetch_all(
                    "SELECT participation_id, post_id FROM delivery WHERE project_id = %s AND acked_at IS NOT NULL",
                    (project_id,),
                )
            }
            ours = {one for one in acked_posts if one[0] == project_id}
            require(stands == ours, f"acks of project {project_id}: {len(ours)} answered, {len(stands)} stand")
    return len(recipients_by_post)
