"""What a plan is made of. Nothing here does anything."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ResultRef:
    """Stands in the arguments of a step for what an earlier one answered."""

    step: int
    field: str


@dataclass(frozen=True, slots=True)
class LabelRef:
    """Stands in the arguments of a step for an agent's label, which the bus that it is played on decides."""

    agent: int


@dataclass(frozen=True, slots=True)
class Step:
    """One call of one agent in one project.

    Attributes:
        arguments: as the tool takes them, with Result and Label in place of what only the bus knows.
        events: the types of event that it adds to the ledger.
    """

    project: int
    agent: int
    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)
    events: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExpectedCounts:
    """What the report of one project has to say once the plan was played; `events` counts them by type."""

    events_by_type: dict[str, int]
    acked: int
    anchored: int
    collisions: int


@dataclass(frozen=True, slots=True)
class SimulatedAgent:
    """A simulated agent and the lane that it works in, everywhere."""

    label: str
    lane: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A fleet's day; agents and projects go by their index.

    Attributes:
        teams: for each project the agents that work in it.
        expected: for each project what its ledger will hold.
    """

    agents: tuple[SimulatedAgent, ...]
    projects: tuple[str, ...]
    teams: tuple[tuple[int, ...], ...]
    steps: tuple[Step, ...]
    expected: tuple[ExpectedCounts, ...]
