"""Rows of the original's database, as far as an import reads them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class OwnerRow:
    """An owner; `username` is the public handle."""

    id: int
    email: str
    username: str | None
    is_operator: bool
    plan: str
    suspended_at: datetime | None
    delinquent_since: datetime | None
    token_balance: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class IdentityRow:
    """An account of an owner at Google or GitHub."""

    owner_id: int
    provider: str
    provider_subject: str
    email: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ProjectRow:
    """A project."""

    id: int
    owner_id: int
    slug: str
    name: str
    liveness_window_sec: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ParticipantRow:
    """A participant of an owner."""

    id: int
    owner_id: int
    name: str
    kind: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ParticipationRow:
    """A participant in a project."""

    id: int
    participant_id: int
    lane: str | None
    is_admin: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token; `token_hash` is the SHA-256 of its text in hexadecimal."""

    participation_id: int
    token_hash: str
    label: str | None
    created_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class SequenceRow:
    """A sequence; its next claim is `current` + 1."""

    name: str
    current: int
    prefix: str | None
    pad: int | None


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """An event, with its post where it has one; or a post without an event, whose `event_id` is None."""

    ts: datetime
    event_id: int | None
    participation_id: int | None
    actor_name: str | None
    type: str
    payload: Any
    post_id: int | None
    to_lane: str | None
    to_participation_id: int | None
    subject: str | None
    body: str | None
    ref: str | None
    tag: str | None


@dataclass(frozen=True, slots=True)
class AckRow:
    """An ack of a post."""

    post_id: int
    participation_id: int | None
    actor_name: str | None
    acked_at: datetime


@dataclass(frozen=True, slots=True)
class PresenceRow:
    """The presence of a participation."""

    participation_id: int
    lane: str | None
    status: str | None
    registered_at: datetime | None
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A live lease."""

    id: int
    surface: str
    participation_id: int | None
    actor_name: str | None
    note: str | None
    acquired_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task; its id is global over projects."""

    id: int
    title: str
    detail: str | None
    lane: str | None
    owner_participation_id: int | None
    owner_name: str | None
    status: str
    created_by_id: int | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class BlockerRow:
    """A blocker of a task."""

    task_id: int
    blocked_on_task_id: int | None
    reason: str | None
    created_at: datetime
    resolved_at: datetime | None


@dataclass(frozen=True, slots=True)
class CursorRow:
    """The last event that a participation has read."""

    participation_id: int
    last_event_id: int


@dataclass(frozen=True, slots=True)
class InviteRow:
    """An open join code or invite; `secret` is the code, or the hash of the token in hexadecimal."""

    secret: str
    is_hash: bool
    intended_name: str | None
    kind: str | None
    lane: str | None
    is_admin: bool
    max_uses: int
    uses: int
    expires_at: datetime | None
    target_email: str | None
