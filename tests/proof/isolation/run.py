"""Runs of the state machine against a database."""

import time
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from bus.db import Database
from tests.proof.isolation.beginning import create_beginning
from tests.proof.isolation.membership_rules import MembershipRules
from tests.proof.isolation.tool_rules import ToolRules

# Rolled back examples leave dead rows, which the fingerprints read.
_EXAMPLES_PER_VACUUM = 50
DEFAULT_STEPS = 40


class TwoTenants(ToolRules, MembershipRules):
    """All rules."""


@dataclass(frozen=True)
class Summary:
    """The size of a run; `counts` has the number of steps by tool and act."""

    examples: int
    steps: int
    seconds: float
    counts: dict[str, int]


def run(
    database: Database, examples: int, *, is_new: bool = True, steps: int = DEFAULT_STEPS, shrink: bool = True
) -> Summary:
    """Run examples and judge each step.

    Args:
        is_new: draw new examples; otherwise they are the same in each run.
        shrink: look for the shortest failing example.
    Raises:
        AssertionError: a step differs from the model, or concerns the other tenant.
    """
    counts: dict[str, int] = {}

    class Machine(TwoTenants):
        pass

    Machine.database, Machine.beginning = database, create_beginning(database)
    Machine.counts = counts

    class VacuumingMachine(Machine):
        def teardown(self) -> None:
            super().teardown()
            if counts["examples"] % _EXAMPLES_PER_VACUUM == 0:
                with database.connection() as conn:
                    conn.execute("VACUUM")

    phases = [Phase.explicit, Phase.generate, *([Phase.shrink] if shrink else [])]
    started = time.monotonic()
    run_state_machine_as_test(
        VacuumingMachine,
        settings=settings(
            max_examples=examples,
            derandomize=not is_new,
            stateful_step_count=steps,
            phases=phases,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    step_count = sum(count for name, count in counts.items() if name != "examples")
    return Summary(counts["examples"], step_count, time.monotonic() - started, counts)
