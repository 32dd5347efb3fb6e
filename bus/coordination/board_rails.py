"""The rails of the live board: one for each lane, with its participants and the handoffs that rest there."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from bus.coordination.board import Board, Participant, Post

MAX_RAILS = 8
MAX_RIDERS = 8
MAX_STOPS = 3


@dataclass(frozen=True, slots=True)
class Rider:
    """A participant on a rail; `doing`: its status, else its task in progress, else the file that it edits."""

    participant: Participant
    doing: str


@dataclass(slots=True)
class Rail:
    """A lane.

    Attributes:
        lane: empty for participants without a lane.
        riders: its participants, active ones first, at most MAX_RIDERS.
        rider_count, active_count: all of them, and those that are active.
        stops: handoffs to the lane or to one of its participants, at most MAX_STOPS: overdue ones, then those that
            wait, from the oldest on, then the newest acknowledged ones.
        stop_count: all of them that the board has.
    """

    lane: str
    riders: list[Rider] = field(default_factory=list)
    rider_count: int = 0
    active_count: int = 0
    stops: list[Post] = field(default_factory=list)
    stop_count: int = 0


@dataclass(frozen=True, slots=True)
class Rails:
    """The rails that are shown, ordered by lane, and the lanes that are left out: the quiet ones of very many."""

    shown: list[Rail]
    quiet_lanes: list[str]


def build_rails(board: Board) -> Rails:
    """Arrange the participants and posts of a board by lane."""
    rails: dict[str, Rail] = {}
    lanes = {participant.actor: participant.lane for participant in board.participants}
    doing = _find_work(board)
    # By name, since an order by last_seen would move them while the board is watched.
    for participant in sorted(board.participants, key=lambda one: (not one.is_active, one.actor)):
        rail = rails.setdefault(participant.lane, Rail(participant.lane))
        rail.rider_count += 1
        rail.active_count += participant.is_active
        if len(rail.riders) < MAX_RIDERS:
            work = participant.status or doing.get(participant.actor, "")
            rail.riders.append(Rider(participant, work))
    for post in board.posts:
        lane = post.to_lane or lanes.get(post.to_actor or "", "")
        rail = rails.setdefault(lane, Rail(lane))
        rail.stop_count += 1
        if len(rail.stops) < MAX_STOPS:
            rail.stops.append(post)
    return _select(rails.values())


def _select(rails: Iterable[Rail]) -> Rails:
    by_activity = sorted(rails, key=lambda rail: (not rail.stop_count, not rail.active_count, rail.lane))
    shown = sorted(by_activity[:MAX_RAILS], key=lambda rail: (not rail.lane, rail.lane))
    return Rails(shown, sorted(rail.lane for rail in by_activity[MAX_RAILS:]))


def _find_work(board: Board) -> dict[str, str]:
    """What participants work on according to tasks and leases, by name."""
    work = {lease.actor: f"editing {lease.surface}" for lease in reversed(board.leases)}
    for column in board.task_columns:
        if column.status == "in_progress":
            work |= {task.owner: task.title for task in reversed(column.tasks) if task.owner}
    return work
