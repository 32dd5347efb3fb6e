"""The payloads of events: for each type what it records, and the fields that its payload has.

A test compares this table with events that the engine writes. A `?` marks a field that is not always there.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bus.rules.enums import EventType


@dataclass(frozen=True, slots=True)
class EventDescription:
    """What an event records, and its fields with their meaning."""

    summary: str
    fields: Mapping[str, str]


_TASK = "number of the task; absent in events that were imported"
_REASON = "how the session that held it ended: `ended`, `silent` or `revoked`"

EVENT_PAYLOADS: Mapping[EventType, EventDescription] = {
    "claim": EventDescription(
        "A number was claimed.",
        {
            "sequence": "its name",
            "number": "the number",
            "formatted": "with prefix and padding",
            "note": "what it is for, or null",
        },
    ),
    "seed": EventDescription(
        "A sequence was created or changed.",
        {
            "sequence": "its name",
            "current": "the last number that is in use",
            "prefix": "text before each number",
            "pad": "least number of digits",
        },
    ),
    "register": EventDescription(
        "A participant set its lane and status.", {"lane": "the lane", "status": "free text, may be empty"}
    ),
    "post": EventDescription(
        "A handoff was sent. Its text is not in the ledger; the id of the event is that of the post.",
        {
            "to_lane": "the lane, or null",
            "to_actor": "the participant, or null",
            "subject": "the subject, or null",
            "ref": "the artifact, or null",
            "tag": "the tag, or null",
            "reply_to": "the post that it answers, or null",
            "recipients": "how many participants received it at once",
        },
    ),
    "ack": EventDescription("A handoff was acknowledged.", {"post_id": "the post"}),
    "lease": EventDescription(
        "A surface was leased. A renewal is no event.",
        {
            "surface": "path or glob",
            "ttl_seconds": "its length",
            "mode": "`exclusive` or `shared`",
            "fence": "the id of this event; rises with each lease",
            "contended": "how many live leases of others overlapped",
        },
    ),
    "release": EventDescription(
        "A lease was ended before its time.",
        {
            "surface": "path or glob",
            "held_by?": "the holder, where a project-admin released it",
            "fence?": "its fence, in the same case",
            "reason?": _REASON,
        },
    ),
    "lease_expire": EventDescription(
        "The time of a lease was over.", {"surface": "path or glob", "fence": "its fence"}
    ),
    "task_create": EventDescription(
        "A task was created.",
        {
            "task_id": _TASK,
            "title": "its title",
            "lane": "the lane, or null",
            "owner": "its assignee, or null",
            "priority": "0 (first) to 4",
            "blocked_on": "tasks that it waits for",
        },
    ),
    "task_assign": EventDescription("A task was assigned.", {"task_id": _TASK, "owner": "its assignee"}),
    "task_start": EventDescription("A task was started.", {"task_id": _TASK, "owner": "its assignee"}),
    "task_block": EventDescription(
        "A started task was blocked.",
        {"task_id": _TASK, "reason": "why", "on": "the task that it waits for, or null"},
    ),
    "task_resolve": EventDescription(
        "Blockers of a task were resolved.",
        {"task_id": _TASK, "blocker": "the task that it waited for, or null for all", "status": "its status now"},
    ),
    "task_ship": EventDescription(
        "A task was finished.",
        {"task_id": _TASK, "ref": "the artifact, or null", "unblocked": "tasks that may go on or start because of it"},
    ),
    "task_requeue": EventDescription(
        "A started task was returned to the queue, since its assignee or its session is gone.",
        {"task_id": _TASK, "owner": "its former assignee", "reason?": _REASON},
    ),
    "task_edit": EventDescription(
        "The texts or the priority of a task were changed; the fields are those that changed.",
        {
            "task_id": _TASK,
            "title?": "its title",
            "detail?": "true; the detail itself is not in the ledger",
            "lane?": "the lane, or null",
            "priority?": "0 (first) to 4",
        },
    ),
    "presence_lapse": EventDescription(
        "A participant was not seen for the time that the project sets.",
        {"lane": "its lane, or null", "last_seen": "when it was seen last"},
    ),
    "escalate": EventDescription(
        "A handoff was not acknowledged by its deadline.",
        {"post_id": "the post", "to_lane": "the lane, or null", "to_actor": "the participant, or null",
         "ref": "the artifact, or null"},
    ),
}  # fmt: skip
