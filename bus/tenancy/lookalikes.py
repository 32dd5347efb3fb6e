"""Names that an invited person chooses, compared with those of the projects in which they would be seen.

Only the skeleton is compared (bus/rules/confusables.py): a name that is the same is refused where it is assigned.
"""

from collections.abc import Collection

from bus.db import Connection
from bus.rules import validation
from bus.rules.confusables import skeleton

# The labels of participants, present and former, and the handles of people, present and former.
_NAMES_SQL = """
    SELECT pt.label FROM participation p JOIN participant pt ON pt.id = p.participant_id
    WHERE p.project_id = ANY (%(projects)s) AND pt.label <> '' AND pt.owner_id <> %(except)s
    UNION
    SELECT n.label_key FROM participation p JOIN participant_name n ON n.participant_id = p.participant_id
    WHERE p.project_id = ANY (%(projects)s) AND n.label_key <> '' AND n.owner_id <> %(except)s
    UNION
    SELECT h.handle FROM owner_handle h WHERE h.owner_id <> %(except)s AND h.owner_id IN (
        SELECT pj.owner_id FROM project pj WHERE pj.id = ANY (%(projects)s)
        UNION SELECT m.owner_id FROM membership m WHERE m.project_id = ANY (%(projects)s))
"""


def find_lookalike(
    conn: Connection, project_ids: Collection[int], name: str, *, except_owner_id: int = 0
) -> str | None:
    """Return a name in one of some projects that another name looks like, without being it; None if there is none.

    Args:
        except_owner_id: an owner whose own names do not count.
    """
    wanted, key = skeleton(name), validation.label_key(name)
    rows = conn.fetch_all(_NAMES_SQL, {"projects": list(project_ids), "except": except_owner_id})
    lookalikes = (
        present for (present,) in rows if skeleton(present) == wanted and validation.label_key(present) != key
    )
    return next(lookalikes, None)
