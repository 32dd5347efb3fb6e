"""The data model of a demo plan."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ResultRef:
    """A placeholder in the arguments of a step for a result field of an earlier step."""

    step: int
    field: str


@dataclass(frozen=True, slots=True)
class LabelRef:
    """A placeholder in the arguments of a step for an agent's label, which is known only at run time."""

    agent: int


@dataclass(frozen=True, slots=True)
class Step:
    """One call of one agent in one project.

    Attributes:
        arguments: the tool's arguments, with ResultRef and LabelRef for values that are known only at run time.
        events: the types of the events that it adds to the ledger.
    """

    project: int
    agent: int
    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)
    events: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExpectedCounts:
    """The metrics that the report of a project must have after the plan was run."""

    events_by_type: dict[str, int]
    acked: int
    anchored: int
    collisions: int


@dataclass(frozen=True, slots=True)
class SimulatedAgent:
    """A simulated agent and its lane, which is the same in every project."""

    label: str
    lane: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a fleet; agents and projects are referred to by index.

    Attributes:
        teams: for each project, the agents that work in it.
        expected: for each project, the expected content of its ledger.
    """

    agents: tuple[SimulatedAgent, ...]
    projects: tuple[str, ...]
    teams: tuple[tuple[int, ...], ...]
    steps: tuple[Step, ...]
    expected: tuple[ExpectedCounts, ...]
