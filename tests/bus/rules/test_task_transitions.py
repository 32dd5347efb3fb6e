from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.errors import BusError
from bus.rules.enums import TASK_STATUSES
from bus.rules.task_transitions import ACTIONS, next_status, would_create_cycle

ALLOWED = {
    "assign": {"open": "assigned", "assigned": "assigned"},
    "start": {"open": "in_progress", "assigned": "in_progress"},
    "block": {"in_progress": "blocked"},
    "resolve": {"open": "open", "assigned": "assigned", "blocked": "in_progress"},
    "ship": {"in_progress": "done"},
    "requeue": {"in_progress": "open"},
}


@pytest.mark.parametrize("status", TASK_STATUSES)
@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_leads_to_its_status_or_is_refused(action: str, status: str) -> None:
    if status in ALLOWED[action]:
        assert next_status(action, status) == ALLOWED[action][status]
        return
    with pytest.raises(BusError) as refused:
        next_status(action, status)
    assert refused.value.code == "wrong_state"
    assert refused.value.data == {"status": status}
    assert refused.value.message.startswith("Task is ")
    assert refused.value.message.endswith(".")


def test_a_refusal_names_the_next_step() -> None:
    with pytest.raises(BusError, match=r"^Task is done; create a new one\.$"):
        next_status("start", "done")
    with pytest.raises(BusError, match=r"start it first\.$") as refused:
        next_status("ship", "assigned")
    assert refused.value.hint == "start_task"
    with pytest.raises(BusError, match=r"resolve its blockers first\.$") as refused:
        next_status("ship", "blocked")
    assert refused.value.hint == "resolve_task"


@pytest.mark.parametrize(
    ("blockers", "sentence"),
    [
        (1, "Task waits for 1 blocker; resolve it first or take another task."),
        (2, "Task waits for 2 blockers; resolve them first or take another task."),
    ],
)
@pytest.mark.parametrize("status", ["open", "assigned"])
def test_a_task_with_open_blockers_cannot_be_started(status: str, blockers: int, sentence: str) -> None:
    with pytest.raises(BusError) as refused:
        next_status("start", status, blockers)
    assert refused.value.code == "wrong_state"
    assert refused.value.message == sentence
    assert refused.value.hint == "take_next_task"
    assert refused.value.data == {"status": status}


@pytest.mark.parametrize("status", ["open", "assigned", "blocked"])
def test_resolving_one_of_several_blockers_keeps_the_status(status: str) -> None:
    assert next_status("resolve", status, 1) == status


@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 2)), max_size=40))
def test_a_done_task_stays_done_and_a_task_in_progress_has_no_open_blockers(
    steps: list[tuple[str, int]],
) -> None:
    status = "open"
    for action, blockers in steps:
        try:
            target = next_status(action, status, blockers)
        except BusError:
            continue
        assert status != "done"
        assert target in TASK_STATUSES
        if target == "in_progress":
            assert blockers == 0
        status = target


@pytest.mark.parametrize(
    ("edges", "task", "on", "cycles"),
    [
        ({}, 1, 1, True),
        ({}, 1, 2, False),
        ({2: [1]}, 1, 2, True),
        ({2: [3], 3: [1]}, 1, 2, True),
        ({2: [3], 3: [4]}, 1, 2, False),
        ({1: [2]}, 1, 2, False),
        ({1: [2, 3], 2: [4], 3: [4]}, 1, 4, False),
        ({2: [3], 3: [2]}, 1, 2, False),
    ],
)
def test_a_cycle_is_detected(edges: dict[int, Collection[int]], task: int, on: int, cycles: bool) -> None:
    assert would_create_cycle(edges, task, on) is cycles


def test_a_long_chain_does_not_overflow_the_stack() -> None:
    chain = {number: [number + 1] for number in range(100_000)}
    assert would_create_cycle(chain, 100_000, 0)
    assert not would_create_cycle(chain, 100_001, 0)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30))
def test_a_graph_without_refused_edges_has_a_topological_order(drawn: list[tuple[int, int]]) -> None:
    edges: dict[int, set[int]] = {}
    refused = []
    for task, on in drawn:
        if would_create_cycle(edges, task, on):
            refused.append((task, on))
        else:
            edges.setdefault(task, set()).add(on)
    assert _has_topological_order(edges)
    for task, on in refused:
        assert not _has_topological_order({**edges, task: {*edges.get(task, set()), on}})


def _has_topological_order(edges: dict[int, set[int]]) -> bool:
    remaining = {task: set(on) for task, on in edges.items()}
    while remaining:
        ready = [task for task, on in remaining.items() if not on & remaining.keys()]
        if not ready:
            return False
        for task in ready:
            del remaining[task]
    return True
