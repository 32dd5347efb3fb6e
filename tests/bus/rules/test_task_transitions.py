from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.errors import BusError
from bus.rules.task_transitions import ACTIONS, STATUSES, next_status, would_create_cycle

ALLOWED = {
    "assign": {"open": "assigned", "assigned": "assigned"},
    "start": {"open": "in_progress", "assigned": "in_progress"},
    "block": {"in_progress": "blocked"},
    "resolve": {"open": "open", "assigned": "assigned", "blocked": "in_progress"},
    "ship": {"in_progress": "done"},
    "requeue": {"in_progress": "open"},
}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("verb", ACTIONS)
def test_every_verb_leads_where_the_diagram_says_or_is_refused(verb: str, status: str) -> None:
    if status in ALLOWED[verb]:
        assert next_status(verb, status) == ALLOWED[verb][status]
        return
    with pytest.raises(BusError) as refused:
        next_status(verb, status)
    assert refused.value.code == "wrong_state"
    assert refused.value.data == {"status": status}
    assert refused.value.message.startswith("Task is ")
    assert refused.value.message.endswith(".")


def test_a_refusal_says_what_to_do_next() -> None:
    with pytest.raises(BusError, match=r"^Task is done; create a new one\.$"):
        next_status("start", "done")
    with pytest.raises(BusError, match=r"task_start first\.$"):
        next_status("ship", "assigned")
    with pytest.raises(BusError, match="task_resolve"):
        next_status("ship", "blocked")


@pytest.mark.parametrize(
    ("blockers", "sentence"),
    [
        (1, "Task waits for 1 blocker; resolve it first or pick another with task_next."),
        (2, "Task waits for 2 blockers; resolve them first or pick another with task_next."),
    ],
)
@pytest.mark.parametrize("status", ["open", "assigned"])
def test_a_task_with_open_blockers_cannot_be_started(status: str, blockers: int, sentence: str) -> None:
    with pytest.raises(BusError) as refused:
        next_status("start", status, blockers)
    assert refused.value.code == "wrong_state"
    assert refused.value.message == sentence
    assert refused.value.data == {"status": status}


@pytest.mark.parametrize("status", ["open", "assigned", "blocked"])
def test_resolving_one_of_several_blockers_changes_no_status(status: str) -> None:
    assert next_status("resolve", status, 1) == status


@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 2)), max_size=40))
def test_a_task_that_is_done_stays_done_and_work_never_has_open_blockers(
    steps: list[tuple[str, int]],
) -> None:
    status = "open"
    for verb, blockers in steps:
        try:
            following = next_status(verb, status, blockers)
        except BusError:
            continue
        assert status != "done"
        assert following in STATUSES
        if following == "in_progress":
            assert blockers == 0
        status = following


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
def test_a_task_never_comes_to_wait_for_itself(
    edges: dict[int, Collection[int]], task: int, on: int, cycles: bool
) -> None:
    assert would_create_cycle(edges, task, on) is cycles


def test_a_long_chain_is_no_trouble() -> None:
    chain = {number: [number + 1] for number in range(100_000)}
    assert would_create_cycle(chain, 100_000, 0)
    assert not would_create_cycle(chain, 100_001, 0)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30))
def test_a_graph_built_through_the_check_can_always_be_put_in_order(wanted: list[tuple[int, int]]) -> None:
    edges: dict[int, set[int]] = {}
    refused = []
    for task, on in wanted:
        if would_create_cycle(edges, task, on):
            refused.append((task, on))
        else:
            edges.setdefault(task, set()).add(on)
    assert _can_be_ordered(edges)
    for task, on in refused:
        assert not _can_be_ordered({**edges, task: {*edges.get(task, set()), on}})


def _can_be_ordered(edges: dict[int, set[int]]) -> bool:
    left = {task: set(on) for task, on in edges.items()}
    while left:
        ready = [task for task, on in left.items() if not on & left.keys()]
        if not ready:
            return False
        for task in ready:
            del left[task]
    return True
