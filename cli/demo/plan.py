"""Generation of a demo plan from a seed: an ordered list of tool calls.

The activity mix is that of eight days of the original service, as its page reports them: 77.5% handoffs and acks,
7.3% claims, 90.3% of the handoffs acknowledged, 88% anchored to an artifact.
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
# The share of posts that a second reader acknowledges too.
_SECOND_ACK_SHARE = 0.02
# More concurrent scripts mean a longer time between a post and its ack.
MAX_CONCURRENT_SCRIPTS = 12
# The minimum team of a project: a sender, a reader and a second reader.
MIN_AGENTS = 3

# Scripts besides handoffs and claims, with the number of events that each adds. Every project gets the required ones
# if the budget allows.
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
    """The number of events by purpose; `other_events` are presence, seeds, leases and tasks."""

    posts: int
    acked_posts: int
    acks: int
    anchored_posts: int
    claims: int
    other_events: int


def split_events(events: int) -> EventBudget:
    """Split a number of events according to the activity mix."""
    posts_and_acks = round(events * HANDOFF_AND_ACK_SHARE)
    posts = round(posts_and_acks / (1 + ACKED_SHARE + _SECOND_ACK_SHARE))
    acks = posts_and_acks - posts
    claims = round(events * CLAIM_SHARE)
    return EventBudget(
        posts=posts,
        acked_posts=min(round(posts * ACKED_SHARE), acks),
        acks=acks,
        anchored_posts=round(posts * ANCHORED_SHARE),
        claims=claims,
        other_events=events - posts_and_acks - claims,
    )


def min_events(agents: int, projects: int) -> int:
    """Return the fewest events with which the fleet keeps to the mix and runs every required script."""
    needed = sum(len(team) + len(texts.SEQUENCES) for team in _assign_teams(agents, projects))
    needed += sum(size for _, size in _REQUIRED_SCRIPTS)
    events = needed
    while split_events(events).other_events < needed:
        events += 1
    return events


def make_plan(agents: int, projects: int, events: int, seed: int) -> Plan:
    """Generate the plan of a fleet; the same arguments give the same plan.

    Args:
        agents: at least MIN_AGENTS.
        projects: 1 or more; if there are many, agents work in several.
        events: the number of events of all ledgers together, at least `min_events`.
        seed: of the random choices.
    """
    random = Random(seed)  # noqa: S311 - simulation, not a secret
    fleet, teams = make_fleet(agents, projects)
    simulations = [ProjectSimulation(number, team, fleet, random) for number, team in enumerate(teams)]
    steps: list[Step] = []
    for simulation in simulations:
        _interleave([simulation.register_team()], simulations, steps, random)
    budget = split_events(events)
    filler_events = budget.other_events - sum(len(step.events) for step in steps)
    scripts = [
        *_handoff_scripts(budget, simulations, random),
        *(_pick_project(simulations, random).claim() for _ in range(budget.claims)),
        *_filler_scripts(filler_events, simulations, random),
    ]
    random.shuffle(scripts)
    _interleave(scripts, simulations, steps, random)
    return Plan(
        agents=tuple(fleet),
        projects=tuple(texts.numbered_name(texts.PROJECT_NAMES, number) for number in range(projects)),
        teams=teams,
        steps=tuple(steps),
        expected=tuple(simulation.expected_counts() for simulation in simulations),
    )


def _interleave(
    scripts: list[Script], projects: Sequence[ProjectSimulation], steps: list[Step], random: Random
) -> None:
    """Append the steps of all scripts in random order, keeping the order within each script."""
    running: list[tuple[Script, int | None]] = []
    while scripts or running:
        while scripts and len(running) < MAX_CONCURRENT_SCRIPTS:
            running.append((scripts.pop(), None))
        script, last_step = running.pop(random.randrange(len(running)))
        try:
            step = next(script) if last_step is None else script.send(last_step)
        except StopIteration:
            continue
        running.append((script, len(steps)))
        steps.append(step)
        projects[step.project].events.update(step.events)


def _handoff_scripts(
    event_budget: EventBudget, projects: Sequence[ProjectSimulation], random: Random
) -> Iterator[Script]:
    acked_twice = min(event_budget.acks - event_budget.acked_posts, event_budget.acked_posts)
    ack_counts = (
        [2] * acked_twice
        + [1] * (event_budget.acked_posts - acked_twice)
        + [0] * (event_budget.posts - event_budget.acked_posts)
    )
    anchored = [True] * event_budget.anchored_posts + [False] * (event_budget.posts - event_budget.anchored_posts)
    random.shuffle(ack_counts)
    random.shuffle(anchored)
    for ack_count, is_anchored in zip(ack_counts, anchored, strict=True):
        yield _pick_project(projects, random).handoff(ack_count, is_anchored)


def _filler_scripts(events: int, projects: Sequence[ProjectSimulation], random: Random) -> Iterator[Script]:
    for project in projects:
        for script, size in _REQUIRED_SCRIPTS:
            if size <= events:
                yield script(project)
                events -= size
    while events:
        script, size = random.choice([candidate for candidate in _FILLER_SCRIPTS if candidate[1] <= events])
        yield script(_pick_project(projects, random))
        events -= size


def _pick_project(projects: Sequence[ProjectSimulation], random: Random) -> ProjectSimulation:
    """Pick a random project; earlier ones are picked more often."""
    return random.choices(projects, [1 / (2 + number) for number in range(len(projects))])[0]


def _assign_teams(agents: int, projects: int) -> tuple[tuple[int, ...], ...]:
    """Distribute the agents over the projects, and fill teams of fewer than MIN_AGENTS with agents of other teams."""
    teams = []
    for project in range(projects):
        members = list(range(project, agents, projects))
        others = [agent % agents for agent in range(project + 1, project + 1 + agents)]
        candidates = [agent for agent in others if agent not in members]
        teams.append(tuple(sorted(members + candidates[: max(0, MIN_AGENTS - len(members))])))
    return tuple(teams)


def make_fleet(agents: int, projects: int) -> tuple[list[SimulatedAgent], tuple[tuple[int, ...], ...]]:
    """Return the agents, and for each project those that work in it."""
    labels = [label for label, _ in texts.AGENTS]
    lanes = [lane for _, lane in texts.AGENTS]
    fleet = [
        SimulatedAgent(texts.numbered_name(labels, number), lanes[number % len(lanes)]) for number in range(agents)
    ]
    return fleet, _assign_teams(agents, projects)
