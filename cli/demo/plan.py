"""From a seed to the day of a fleet: who calls which tool with what, in which order.

The activity mix is that of the original's own eight days, as its page reports them: 77.5 % handoffs and acks,
7.3 % claims, 90.3 % of the handoffs acknowledged, 88 % anchored to an artifact.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from cli.demo import texts
from cli.demo.model import Plan, SimulatedAgent, Step
from cli.demo.scripts import ProjectSimulation, Script

HANDOFF_AND_ACK_SHARE = 0.775
CLAIM_SHARE = 0.073
ACKED_SHARE = 0.903
ANCHORED_SHARE = 0.88
# Some posts are acked by a second reader too.
_SECOND_ACK_SHARE = 0.02
# How many scripts are under way at once: the more, the longer a post waits for its ack.
_MAX_CONCURRENT_SCRIPTS = 12
# In each project at least this many work: one hands over, one takes up, one looks on.
MIN_AGENTS = 3

# What fills the plan besides handoffs and claims, with the events that each adds; the first two show what a bus
# is for, so every project gets them as far as they fit.
_REQUIRED_SCRIPTS: tuple[tuple[Callable[[ProjectSimulation], Script], int], ...] = (
    (ProjectSimulation.colliding_leases, 4),
    (ProjectSimulation.blocked_task, 8),
)
_FILLER_SCRIPTS = (
    *_REQUIRED_SCRIPTS,
    (ProjectSimulation.dependent_tasks, 6),
    (ProjectSimulation.single_lease, 2),
    (ProjectSimulation.status_update, 1),
)


@dataclass(frozen=True, slots=True)
class EventBudget:
    """How much of what a plan holds; `rest` is presence, seeds, leases and tasks, in events."""

    posts: int
    acked_posts: int
    acks: int
    anchored_posts: int
    claims: int
    other_events: int


def split_events(events: int) -> EventBudget:
    """Split a number of events as the mix says."""
    handed = round(events * HANDOFF_AND_ACK_SHARE)
    posts = round(handed / (1 + ACKED_SHARE + _SECOND_ACK_SHARE))
    acked = min(round(posts * ACKED_SHARE), handed - posts)
    claims = round(events * CLAIM_SHARE)
    return EventBudget(posts, acked, handed - posts, round(posts * ANCHORED_SHARE), claims, events - handed - claims)


def min_events(agents: int, projects: int) -> int:
    """The fewest events in which such a fleet can keep to the mix and show one of everything."""
    needed = sum(len(team) + len(texts.SEQUENCES) for team in _assign_teams(agents, projects))
    needed += sum(size for _, size in _REQUIRED_SCRIPTS)
    events = needed
    while split_events(events).other_events < needed:
        events += 1
    return events


def make_plan(agents: int, projects: int, events: int, seed: int) -> Plan:
    """The plan for a fleet; the same numbers give the same plan.

    Args:
        agents: at least LEAST_AGENTS.
        projects: 1 or more; where they are many, agents work in several.
        events: how many the ledgers will hold together, at least `least_events`.
    """
    random = Random(seed)  # noqa: S311 - a story, not a secret
    fleet = [_make_agent(number) for number in range(agents)]
    teams = _assign_teams(agents, projects)
    places = [ProjectSimulation(number, team, fleet, random) for number, team in enumerate(teams)]
    steps: list[Step] = []
    for place in places:
        _interleave([place.register_team()], places, steps, random)
    shares = split_events(events)
    scripts = [
        *_handoff_scripts(shares, places, random),
        *(_pick_project(places, random).claim() for _ in range(shares.claims)),
        *_filler_scripts(shares.other_events - len([kind for step in steps for kind in step.events]), places, random),
    ]
    random.shuffle(scripts)
    _interleave(scripts, places, steps, random)
    return Plan(
        agents=tuple(fleet),
        projects=tuple(_numbered_name(texts.PROJECT_NAMES, number) for number in range(projects)),
        teams=teams,
        steps=tuple(steps),
        expected=tuple(place.expected_counts() for place in places),
    )


def _interleave(
    scripts: list[Script], projects: Sequence[ProjectSimulation], steps: list[Step], random: Random
) -> None:
    """Append the steps of all scripts, those of each in order, with at most _UNDER_WAY begun at any moment."""
    under_way: list[tuple[Script, int | None]] = []
    while scripts or under_way:
        while scripts and len(under_way) < _MAX_CONCURRENT_SCRIPTS:
            under_way.append((scripts.pop(), None))
        script, answer = under_way.pop(random.randrange(len(under_way)))
        try:
            step = next(script) if answer is None else script.send(answer)
        except StopIteration:
            continue
        under_way.append((script, len(steps)))
        steps.append(step)
        projects[step.project].events.update(step.events)


def _handoff_scripts(
    event_budget: EventBudget, projects: Sequence[ProjectSimulation], random: Random
) -> Iterator[Script]:
    twice = min(event_budget.acks - event_budget.acked_posts, event_budget.acked_posts)
    acks = (
        [2] * twice + [1] * (event_budget.acked_posts - twice) + [0] * (event_budget.posts - event_budget.acked_posts)
    )
    anchored = [True] * event_budget.anchored_posts + [False] * (event_budget.posts - event_budget.anchored_posts)
    random.shuffle(acks)
    random.shuffle(anchored)
    for count, has_ref in zip(acks, anchored, strict=True):
        yield _pick_project(projects, random).handoff(count, has_ref)


def _filler_scripts(events: int, projects: Sequence[ProjectSimulation], random: Random) -> Iterator[Script]:
    for place in projects:
        for script, size in _REQUIRED_SCRIPTS:
            if size <= events:
                yield script(place)
                events -= size
    while events:
        script, size = random.choice([kind for kind in _FILLER_SCRIPTS if kind[1] <= events])
        yield script(_pick_project(projects, random))
        events -= size


def _pick_project(projects: Sequence[ProjectSimulation], random: Random) -> ProjectSimulation:
    """A project by lot; the first is the busiest."""
    return random.choices(projects, [1 / (2 + number) for number in range(len(projects))])[0]


def _assign_teams(agents: int, projects: int) -> tuple[tuple[int, ...], ...]:
    """Everybody has a project of its own; where that makes fewer than LEAST_AGENTS, the next in line join in."""
    teams = []
    for project in range(projects):
        own = list(range(project, agents, projects))
        others = [agent % agents for agent in range(project + 1, project + 1 + agents)]
        helpers = [agent for agent in others if agent not in own]
        teams.append(tuple(sorted(own + helpers[: max(0, MIN_AGENTS - len(own))])))
    return tuple(teams)


def _make_agent(number: int) -> SimulatedAgent:
    label, lane = texts.AGENTS[number % len(texts.AGENTS)]
    return SimulatedAgent(_suffixed_name(label, number // len(texts.AGENTS)), lane)


def _numbered_name(names: Sequence[str], number: int) -> str:
    return _suffixed_name(names[number % len(names)], number // len(names))


def _suffixed_name(name: str, round_: int) -> str:
    return f"{name}-{round_ + 1}" if round_ else name
