"""Closed sets of values that are stored and sent. Tables, schemas of tools and checks read them here."""

from typing import Literal, get_args

EventType = Literal[
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
    "task_edit",
    "presence_lapse",
    "escalate",
]
TaskStatus = Literal["open", "assigned", "in_progress", "blocked", "done"]
LeaseMode = Literal["exclusive", "shared"]
ParticipantKind = Literal["agent", "human"]
# The role of another owner in a project; the project's own owner has none.
MemberRole = Literal["viewer", "member", "lead"]
# How a recipient could be reached when a post was written: by a waiting call, by an open stream, beside its next tool
# call, or only at its next turn.
Wake = Literal["waiting", "listening", "hooks", "none"]

EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)
TASK_STATUSES: tuple[TaskStatus, ...] = get_args(TaskStatus)
LEASE_MODES: tuple[LeaseMode, ...] = get_args(LeaseMode)
WAKE_KINDS: tuple[Wake, ...] = get_args(Wake)
MEMBER_ROLES: tuple[MemberRole, ...] = get_args(MemberRole)
PARTICIPANT_KINDS: tuple[ParticipantKind, ...] = get_args(ParticipantKind)
PROCESS_KINDS = ("web", "gateway", "serve", "worker", "beat")
