"""From a seed to the day of a fleet: who calls which tool with what, in which order.

The activity mix is that of the original's own eight days, as its page reports them: 77.5 % handoffs and acks,
7.3 % claims, 90.3 % of the handoffs acknowledged, 88 % anchored to an artifact.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from cli.demo import texts
from cli.demo.model import Agent, Plan, Step
from cli.demo.scripts import Script, Workplace

HANDOFFS_AND_ACKS = 0.775
CLAIMS = 0.073
ACKED = 0.903
ANCHORED = 0.88
# Some posts are acked by a second reader too.
_ACKED_TWICE = 0.02
# How many scripts are under way at once: the more, the longer a post waits for its ack.
_UNDER_WAY = 12
# In each project at least this many work: one hands over, one takes up, one looks on.
LEAST_AGENTS = 3

# What fills the plan besides handoffs and claims, with the events that each adds; the first two show what a bus
# is for, so every project gets them as far as they fit.
_SHOWN: tuple[tuple[Callable[[Workplace], Script], int], ...] = (
    (Workplace.overlap, 4),
    (Workplace.blocked_task, 8),
)
_FILLING = (*_SHOWN, (Workplace.chained_tasks, 6), (Workplace.lone_lease, 2), (Workplace.new_status, 1))


@dataclass(frozen=True, slots=True)
class Budget:
    """How much of what a plan holds; `rest` is presence, seeds, leases and tasks, in events."""

    posts: int
    acked: int
    acks: int
    anchored: int
    claims: int
    rest: int


def budget(events: int) -> Budget:
    """Split a number of events as the mix says."""
    handed = round(events * HANDOFFS_AND_ACKS)
    posts = round(handed / (1 + ACKED + _ACKED_TWICE))
    acked = min(round(posts * ACKED), handed - posts)
    claims = round(events * CLAIMS)
    return Budget(posts, acked, handed - posts, round(posts * ANCHORED), claims, events - handed - claims)


def least_events(agents: int, projects: int) -> int:
    """The fewest events in which such a fleet can keep to the mix and show one of everything."""
    needed = sum(len(team) + len(texts.SEQUENCES) for team in _teams(agents, projects))
    needed += sum(size for _, size in _SHOWN)
    events = needed
    while budget(events).rest < needed:
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
    fleet = [_agent(number) for number in range(agents)]
    teams = _teams(agents, projects)
    places = [Workplace(number, team, fleet, random) for number, team in enumerate(teams)]
    steps: list[Step] = []
    for place in places:
        _run_together([place.arrive()], places, steps, random)
    shares = budget(events)
    scripts = [
        *_handoffs(shares, places, random),
        *(_one_of(places, random).claim() for _ in range(shares.claims)),
        *_filling(shares.rest - len([kind for step in steps for kind in step.events]), places, random),
    ]
    random.shuffle(scripts)
    _run_together(scripts, places, steps, random)
    return Plan(
        agents=tuple(fleet),
        projects=tuple(_numbered(texts.PROJECTS, number) for number in range(projects)),
        teams=teams,
        steps=tuple(steps),
        expected=tuple(place.expected() for place in places),
    )


def _run_together(scripts: list[Script], places: Sequence[Workplace], steps: list[Step], random: Random) -> None:
    """Append the steps of all scripts, those of each in order, with at most _UNDER_WAY begun at any moment."""
    under_way: list[tuple[Script, int | None]] = []
    while scripts or under_way:
        while scripts and len(under_way) < _UNDER_WAY:
            under_way.append((scripts.pop(), None))
        script, answer = under_way.pop(random.randrange(len(under_way)))
        try:
            step = next(script) if answer is None else script.send(answer)
        except StopIteration:
            continue
        under_way.append((script, len(steps)))
        steps.append(step)
        places[step.project].events.update(step.events)


def _handoffs(shares: Budget, places: Sequence[Workplace], random: Random) -> Iterator[Script]:
    twice = min(shares.acks - shares.acked, shares.acked)
    acks = [2] * twice + [1] * (shares.acked - twice) + [0] * (shares.posts - shares.acked)
    anchored = [True] * shares.anchored + [False] * (shares.posts - shares.anchored)
    random.shuffle(acks)
    random.shuffle(anchored)
    for count, has_ref in zip(acks, anchored, strict=True):
        yield _one_of(places, random).hand_over(count, has_ref)


def _filling(events: int, places: Sequence[Workplace], random: Random) -> Iterator[Script]:
    for place in places:
        for script, size in _SHOWN:
            if size <= events:
                yield script(place)
                events -= size
    while events:
        script, size = random.choice([kind for kind in _FILLING if kind[1] <= events])
        yield script(_one_of(places, random))
        events -= size


def _one_of(places: Sequence[Workplace], random: Random) -> Workplace:
    """A project by lot; the first is the busiest."""
    return random.choices(places, [1 / (2 + number) for number in range(len(places))])[0]


def _teams(agents: int, projects: int) -> tuple[tuple[int, ...], ...]:
    """Everybody has a project of its own; where that makes fewer than LEAST_AGENTS, the next in line join in."""
    teams = []
    for project in range(projects):
        own = list(range(project, agents, projects))
        others = [agent % agents for agent in range(project + 1, project + 1 + agents)]
        helpers = [agent for agent in others if agent not in own]
        teams.append(tuple(sorted(own + helpers[: max(0, LEAST_AGENTS - len(own))])))
    return tuple(teams)


def _agent(number: int) -> Agent:
    label, lane = texts.AGENTS[number % len(texts.AGENTS)]
    return Agent(_again(label, number // len(texts.AGENTS)), lane)


def _numbered(names: Sequence[str], number: int) -> str:
    return _again(names[number % len(names)], number // len(names))


def _again(name: str, round_: int) -> str:
    return f"{name}-{round_ + 1}" if round_ else name
