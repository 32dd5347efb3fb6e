"""What events are called in the interface; their types are for agents and programs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EventLabel:
    """The names of one type of event.

    Attributes:
        action: one such event, as an entry of a price list.
        plural: many of them, as a heading or after a count.
    """

    action: str
    plural: str


EVENT_LABELS = {
    "claim": EventLabel("claiming a number", "claims"),
    "seed": EventLabel("setting a sequence", "sequences set"),
    "post": EventLabel("a handoff", "handoffs"),
    "ack": EventLabel("an acknowledgement", "acknowledgements"),
    "lease": EventLabel("a lease", "leases"),
    "release": EventLabel("releasing a lease", "leases released"),
    "task_create": EventLabel("creating a task", "tasks created"),
    "task_assign": EventLabel("assigning a task", "tasks assigned"),
    "task_start": EventLabel("starting a task", "tasks started"),
    "task_block": EventLabel("blocking a task", "tasks blocked"),
    "task_resolve": EventLabel("unblocking a task", "tasks unblocked"),
    "task_ship": EventLabel("shipping a task", "tasks shipped"),
    "register": EventLabel("registering", "registrations"),
    "lease_expire": EventLabel("an expired lease", "leases expired"),
    "task_requeue": EventLabel("a task returned to the queue", "tasks returned to the queue"),
    "task_edit": EventLabel("editing a task", "tasks edited"),
    "presence_lapse": EventLabel("a participant that goes offline", "participants gone offline"),
    "escalate": EventLabel("an escalation", "escalations"),
}
EVENT_ACTIONS = {event_type: label.action for event_type, label in EVENT_LABELS.items()}
EVENT_PLURALS = {event_type: label.plural for event_type, label in EVENT_LABELS.items()}
