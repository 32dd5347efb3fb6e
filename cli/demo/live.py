"""Steps of a fleet without an end, for a demo that goes on until it is stopped."""

from collections.abc import Callable, Iterator
from random import Random

from cli.demo import texts
from cli.demo.model import Plan, Step
from cli.demo.plan import MAX_CONCURRENT_SCRIPTS, make_fleet
from cli.demo.scripts import ProjectSimulation, Script

# How often each script is chosen. More is acknowledged than in a plan, since what is not would pile up.
_SCRIPT_WEIGHTS: tuple[tuple[Callable[[ProjectSimulation, Random], Script], float], ...] = (
    (lambda project, random: project.handoff(random.choices((0, 1, 2), (3, 92, 5))[0], random.random() < 0.88), 46),
    (lambda project, _: project.claim(), 9),
    (lambda project, _: project.single_lease(), 16),
    (lambda project, _: project.colliding_leases(), 6),
    (lambda project, _: project.blocked_task(), 6),
    (lambda project, _: project.dependent_tasks(), 7),
    (lambda project, _: project.status_update(), 10),
)
_SCRIPTS = [script for script, _ in _SCRIPT_WEIGHTS]
_WEIGHTS = [weight for _, weight in _SCRIPT_WEIGHTS]


def make_live_plan(agents: int, projects: int, seed: int) -> tuple[Plan, list[ProjectSimulation], Random]:
    """Return a plan of fleet and projects without steps, the simulations of its projects, and their randomness."""
    random = Random(seed)  # noqa: S311 - simulation, not a secret
    fleet, teams = make_fleet(agents, projects)
    simulations = [ProjectSimulation(number, team, fleet, random) for number, team in enumerate(teams)]
    names = tuple(texts.numbered_name(texts.PROJECT_NAMES, number) for number in range(projects))
    return Plan(tuple(fleet), names, teams, (), ()), simulations, random


def iterate_steps(
    simulations: list[ProjectSimulation],
    random: Random,
    should_stop: Callable[[], bool],
    *,
    position: int = 0,
    concurrency: int = MAX_CONCURRENT_SCRIPTS,
) -> Iterator[Step]:
    """Yield steps of scripts that run interleaved; once `should_stop` is true, only those that end what has begun.

    A placeholder of a step refers to the position of an earlier step.

    Args:
        position: that of the first step; from 1 on the team has registered before.
        concurrency: how many scripts run at once.
    """
    is_registered = position > 0
    running: list[tuple[Script, int | None]] = []
    if not is_registered:
        running = [(simulation.register_team(), None) for simulation in simulations]
    while running or not should_stop():
        if not running:
            is_registered = True
        while is_registered and len(running) < concurrency and not should_stop():
            choose = random.choices(_SCRIPTS, _WEIGHTS)[0]
            running.append((choose(random.choice(simulations), random), None))
        if not running:
            continue
        script, last_position = running.pop(random.randrange(len(running)) if is_registered else 0)
        try:
            step = next(script) if last_position is None else script.send(last_position)
        except StopIteration:
            continue
        running.insert(0, (script, position))
        position += 1
        yield step
