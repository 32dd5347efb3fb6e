"""The expected state of a tenant: its projects, participants, tokens, ledgers, deliveries and credits."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

FREE_EVENT_TYPES = frozenset({"register", "lease_expire", "presence_lapse", "escalate"})
MAX_CURSOR_LAG = 100


class Refused(Exception):
    """The call must be refused with this code: one of the engine's, `not_authenticated` or `suspended`."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def contains_words(text: str, *fields: str | None) -> bool:
    """Whether the fields together have each word of a text."""
    words = {word for field_ in fields for word in re.findall(r"[^\W_]+", (field_ or "").lower())}
    return words >= set(re.findall(r"[^\W_]+", text.lower()))


@dataclass(eq=False)
class Token:
    """A token that was issued; `id` and `text` are what the bus returned."""

    participation: "Participation"
    text: str
    id: int
    is_live: bool = True


@dataclass(eq=False)
class Participant:
    """A participant of an owner. `names` are all labels that it ever had; '' is the owner's own."""

    tenant: "Tenant"
    id: int
    label: str
    kind: str
    is_removed: bool = False
    names: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Participation:
    """A participant in a project; `registered` is its lane and status, `granted_lane` what the owner chose."""

    id: int
    project: "Project"
    participant: Participant
    granted_lane: str | None = None
    is_admin: bool = False
    is_removed: bool = False
    was_seen: bool = False
    registered: tuple[str, str] | None = None
    cursor: int | None = None
    ack_cursor: int | None = None
    tokens: list[Token] = field(default_factory=list)

    @property
    def owner(self) -> "Tenant":
        return self.participant.tenant

    @property
    def actor(self) -> str:
        """The qualified name."""
        return f"{self.owner.handle}/{self.participant.label}" if self.participant.label else self.owner.handle

    def name_for(self, viewer: "Tenant") -> str:
        """The name in lists: the label for its own owner, else the qualified name."""
        return self.participant.label if self.owner is viewer and self.participant.label else self.actor

    @property
    def lane(self) -> str | None:
        return self.registered[0] if self.registered else self.granted_lane

    @property
    def is_present(self) -> bool:
        return not self.is_removed and not self.participant.is_removed

    @property
    def has_live_token(self) -> bool:
        return any(token.is_live for token in self.tokens)


@dataclass(frozen=True)
class Caller:
    """Who calls: a participation with one of its tokens, or the owner in the web without one."""

    participation: Participation
    token: Token | None


@dataclass(eq=False)
class Invite:
    """An invite; `creator` is None for the owner."""

    id: int
    code: str
    participant_name: str | None
    participant: Participant | None
    lane: str | None
    is_admin: bool
    kind: str
    uses: int
    creator: Caller | None
    used: int = 0
    is_revoked: bool = False

    @property
    def is_authorized(self) -> bool:
        """Whether its creator may still invite."""
        if self.creator is None:
            return True
        giver, token = self.creator.participation, self.creator.token
        return giver.is_present and giver.is_admin and (token is None or token.is_live)

    @property
    def is_open(self) -> bool:
        return not self.is_revoked and self.used < self.uses and self.is_authorized


@dataclass(eq=False)
class PersonInvite:
    """An invite with a role for a person; the giver is an owner with a role in the project."""

    code: str
    role: str
    giver: "Tenant"
    email: str | None = None
    is_used: bool = False
    is_revoked: bool = False


@dataclass(frozen=True)
class Event:
    """An entry of the ledger; its number is its position, from 1."""

    type: str
    participation: Participation
    actor: str
    payload: dict[str, Any]


@dataclass(eq=False)
class Sequence:
    """A sequence and its last claim: number, text and claimer."""

    current: int
    prefix: str = ""
    pad: int = 0
    claimed: tuple[int, str, str] | None = None

    def format(self, number: int) -> str:
        return f"{self.prefix}{number:0{self.pad}d}" if self.pad else f"{self.prefix}{number}"


@dataclass(eq=False)
class Post:
    """A post; its id is the number of its event."""

    id: int
    sender: Participation
    actor: str
    body: str
    to_lane: str | None
    to: Participation | None
    to_actor: str | None
    ref: str | None
    tag: str | None
    reply_to: int | None
    is_acked: bool = False


@dataclass(eq=False)
class Delivery:
    """A post in an inbox; not `is_addressed` if it is only the ack of another reader."""

    is_addressed: bool = True
    is_acked: bool = False


@dataclass(eq=False)
class Lease:
    """A live lease."""

    holder: Participation
    actor: str
    surface: str
    mode: str
    note: str | None
    fence: int


@dataclass(eq=False)
class Task:
    """A task; `blockers` are the open ones, as pairs of task and reason."""

    id: int
    title: str
    lane: str | None
    assignee: Participation | None
    owner: str | None
    priority: int
    status: str = "open"
    blockers: list[tuple[int | None, str | None]] = field(default_factory=list)
    is_offered: bool = False

    def is_ready_for(self, participation: Participation) -> bool:
        is_startable = self.status in ("open", "assigned") and not self.blockers
        return is_startable and self.assignee in (None, participation)


@dataclass(eq=False)
class Project:
    """A project; `webhooks`, `invites`, `share_links` by id, `results` by participation and idempotency key.

    Attributes:
        secret: in every text that is written in the project.
        person_invites: invites for people, by id.
        roles: of the other owners in it.
        former_people: other owners that have or had a role in it.
    """

    id: int
    tenant: "Tenant"
    name: str
    secret: str
    is_archived: bool = False
    is_purged: bool = False
    ignores_case: bool = False
    ref_patterns: set[str] = field(default_factory=set)
    events: list[Event] = field(default_factory=list)
    metered: int = 0
    participations: list[Participation] = field(default_factory=list)
    sequences: dict[str, Sequence] = field(default_factory=dict)
    posts: dict[int, Post] = field(default_factory=dict)
    deliveries: dict[tuple[Participation, int], Delivery] = field(default_factory=dict)
    leases: dict[tuple[Participation, str], Lease] = field(default_factory=dict)
    fences: set[int] = field(default_factory=set)
    notified_waits: list[tuple[Participation, str]] = field(default_factory=list)
    tasks: dict[int, Task] = field(default_factory=dict)
    results: dict[tuple[Participation, str], tuple[Any, dict[str, Any]]] = field(default_factory=dict)
    invites: dict[int, Invite] = field(default_factory=dict)
    webhooks: set[int] = field(default_factory=set)
    share_links: dict[int, bool] = field(default_factory=dict)
    person_invites: dict[int, PersonInvite] = field(default_factory=dict)
    roles: dict["Tenant", str] = field(default_factory=dict)
    former_people: set["Tenant"] = field(default_factory=set)

    def role(self, tenant: "Tenant") -> str | None:
        return "owner" if tenant is self.tenant else self.roles.get(tenant)

    def knows(self, tenant: "Tenant") -> bool:
        """Whether names and texts of an owner are, or may still be, in the project."""
        return self.role(tenant) is not None or tenant in self.former_people

    def own_participation(self, tenant: "Tenant") -> Participation:
        """The own participation of an owner, who is a person in the project."""
        return next(each for each in self.participations if each.owner is tenant and each.participant.label == "")

    def is_invite_authorized(self, invite: PersonInvite) -> bool:
        """Whether the giver of an invite for a person may still invite."""
        is_lead = self.role(invite.giver) == "lead" and not invite.giver.is_suspended
        return invite.giver is self.tenant or is_lead

    def authenticate(self, caller: Caller, *, is_write: bool = False) -> Participation:
        """Return the caller's participation, or refuse it as the first statement of each call does."""
        participation, token = caller.participation, caller.token
        if self.is_purged or not participation.is_present or (token is not None and not token.is_live):
            raise Refused("not_authenticated")
        role = self.role(participation.owner)
        if role is None:
            raise Refused("not_authenticated")
        if is_write and role == "viewer":
            raise Refused("forbidden")
        is_suspended = participation.owner.is_suspended or self.tenant.is_suspended
        if is_suspended and (token is not None or is_write):
            raise Refused("suspended")
        if is_write and self.is_archived:
            raise Refused("forbidden")
        return participation

    def record(self, participation: Participation, event_type: str, **payload: Any) -> int:
        """Append an event and return its number."""
        return self.record_as(participation, participation.actor, event_type, **payload)

    def record_as(self, participation: Participation, actor: str, event_type: str, **payload: Any) -> int:
        """As `record`, under a name that the participation had."""
        self.events.append(Event(event_type, participation, actor, payload))
        return len(self.events)

    def unread(self, participation: Participation) -> int:
        return sum(1 for _ in self.inbox(participation))

    def inbox(self, participation: Participation) -> Iterator[int]:
        """Yield the ids of the posts that a participation has not acked."""
        return (
            post_id
            for (recipient, post_id), delivery in self.deliveries.items()
            if recipient is participation and not delivery.is_acked
        )

    def find(self, name: str, viewer: "Tenant") -> Participation | None:
        """Return the participation with a present or former name, as the database resolves it.

        A handle alone is a person, also one who left. A label alone is a participant of the viewer.
        """
        handle, slash, label = name.rpartition("/")
        if not slash:
            persons = (each for each in self.participations if each.actor == label and each.participant.label == "")
            if (person := next(persons, None)) is not None:
                return person
            handle = viewer.handle
        named = (each for each in self.participations if each.owner.handle == handle)
        return next((each for each in named if label in each.participant.names), None)

    def find_present(self, name: str, viewer: "Tenant") -> Participation:
        """As `find`, but refuse a name of none and a participant that was removed."""
        match = self.find(name, viewer)
        if match is None or not match.is_present:
            raise Refused("unknown_recipient")
        return match

    def find_addressable(self, name: str, viewer: "Tenant") -> Participation:
        """As `find_present`, but refuse a person who only views."""
        match = self.find_present(name, viewer)
        self.refuse_viewer(match)
        return match

    def refuse_viewer(self, addressed: Participation | None) -> None:
        """Refuse to address a person who only views and cannot answer."""
        if addressed is not None and self.role(addressed.owner) == "viewer":
            raise Refused("forbidden")

    def lane_members(self, lane: str, sender: Participation) -> list[Participation]:
        return [
            each
            for each in self.participations
            if each.is_present and each is not sender and each.lane == lane and each.has_live_token
        ]

    def join_lane(self, participation: Participation, lane: str | None) -> None:
        """Deliver the unacked posts of a lane to a member that joins it."""
        for post in self.posts.values() if lane is not None else ():
            if post.to_lane == lane and not post.is_acked and post.sender is not participation:
                self.deliveries.setdefault((participation, post.id), Delivery())

    def leave_lane(self, participation: Participation, lane: str | None) -> None:
        """Withdraw the unacked posts that a member has only through its lane."""
        for post in self.posts.values() if lane is not None else ():
            delivery = self.deliveries.get((participation, post.id))
            is_withdrawn = delivery is not None and delivery.is_addressed and not delivery.is_acked
            if is_withdrawn and post.to_lane == lane and post.to is not participation:
                del self.deliveries[participation, post.id]

    def find_result(self, caller: Participation, key: str | None, arguments: Any) -> dict[str, Any] | None:
        """Return the stored result of a call with this idempotency key."""
        stored = self.results.get((caller, key)) if key is not None else None
        if stored is None:
            return None
        if stored[0] != arguments:
            raise Refused("key_reuse")
        return stored[1]

    def store_result(self, caller: Participation, key: str | None, arguments: Any, content: dict[str, Any]) -> None:
        """Store the result of a call under its idempotency key."""
        if key is not None:
            self.results[caller, key] = (arguments, content)

    def end_unauthorized_invites(self, giver: Participation) -> None:
        for invite in self.invites.values():
            if invite.creator is not None and invite.creator.participation is giver and not invite.is_authorized:
                invite.is_revoked |= invite.used < invite.uses

    def end_unauthorized_person_invites(self, giver: "Tenant") -> None:
        for invite in self.person_invites.values():
            if invite.giver is giver and not self.is_invite_authorized(invite):
                invite.is_revoked |= not invite.is_used

    def waits_for(self, task_id: int) -> set[int]:
        """The task and all tasks that it waits for, directly and indirectly."""
        seen: set[int] = set()
        pending = [task_id]
        while pending:
            current = pending.pop()
            if current not in seen:
                seen.add(current)
                pending += [on for on, _ in self.tasks[current].blockers if on is not None]
        return seen

    def bill(self) -> None:
        """Debit the events that were not billed yet; each paid type costs one credit."""
        if len(self.events) > self.metered:
            cost = sum(1 for event in self.events[self.metered :] if event.type not in FREE_EVENT_TYPES)
            self.tenant.balance -= cost
            self.metered = len(self.events)


@dataclass(eq=False)
class Tenant:
    """An owner with everything that belongs to it; the secrets of its projects begin with `secret`."""

    owner_id: int
    handle: str
    secret: str
    is_suspended: bool = False
    balance: int = 0
    plan: str = "free"
    low_balance: int = 100
    payments: dict[str, int] = field(default_factory=dict)
    projects: list[Project] = field(default_factory=list)
    joined_projects: list[Project] = field(default_factory=list)
    participants: list[Participant] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    webhooks: set[int] = field(default_factory=set)
    sessions: set[int] = field(default_factory=set)
    has_requested_mail: bool = False
    mailed_invites: int = 0

    def next_secret(self) -> str:
        """A word for a new project."""
        return f"{self.secret}{'abcdefghijklmnopqrstuvwxyz'[len(self.projects)]}"

    @property
    def open_projects(self) -> list[Project]:
        return [project for project in self.projects if not project.is_purged]

    def find_participant(self, label: str) -> Participant | None:
        """Return the participant that bears or bore a label."""
        return next((each for each in self.participants if label in each.names), None)
