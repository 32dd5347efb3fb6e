"""Fixed sets of words that are stored and sent: event types, task statuses, kinds of participants and processes."""

EVENT_TYPES = (
    "claim",
    "seed",
    "register",
    "post",
    "ack",
    "lease",
    "release",
    "lease_expire",
    "task_create",
    "task_assign",
    "task_start",
    "task_block",
    "task_resolve",
    "task_ship",
    "task_requeue",
    "presence_lapse",
    "escalate",
)
TASK_STATUSES = ("open", "assigned", "in_progress", "blocked", "done")
PARTICIPANT_KINDS = ("agent", "human")
PROCESS_KINDS = ("web", "gateway", "serve", "worker", "beat")
