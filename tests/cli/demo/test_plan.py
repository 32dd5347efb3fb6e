"""Demo plans: they keep the activity mix and depend only on their arguments."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.demo.model import LabelRef, Plan, ResultRef
from cli.demo.plan import MIN_AGENTS, make_plan, min_events, split_events

_fleets = st.tuples(st.integers(MIN_AGENTS, 40), st.integers(1, 20))


def _events(plan: Plan) -> Counter[str]:
    return Counter(event_type for step in plan.steps for event_type in step.events)


def test_the_default_plan_has_the_activity_mix_of_the_original_service() -> None:
    plan = make_plan(9, 4, 591, seed=1)
    events = _events(plan)
    assert (len(plan.agents), len(plan.projects), events.total()) == (9, 4, 591)
    assert round((events["post"] + events["ack"]) / 591, 3) == 0.775
    assert round(events["claim"] / 591, 3) == 0.073
    assert round(sum(project.acked for project in plan.expected) / events["post"], 3) == 0.903
    assert round(sum(project.anchored for project in plan.expected) / events["post"], 2) == 0.88


def test_every_project_of_the_default_plan_has_every_kind_of_activity() -> None:
    for project in make_plan(9, 4, 591, seed=1).expected:
        assert project.collisions >= 1
        activities = {
            "post",
            "ack",
            "claim",
            "seed",
            "register",
            "lease",
            "release",
            "task_block",
            "task_resolve",
            "task_ship",
        }
        assert activities <= set(project.events_by_type)


def test_the_seed_determines_the_plan() -> None:
    assert make_plan(9, 4, 591, seed=7) == make_plan(9, 4, 591, seed=7)
    assert make_plan(9, 4, 591, seed=7) != make_plan(9, 4, 591, seed=8)


@given(fleet=_fleets, more=st.integers(0, 400), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_plan_has_exactly_the_events_of_its_budget(fleet: tuple[int, int], more: int, seed: int) -> None:
    events = min_events(*fleet) + more
    plan = make_plan(*fleet, events, seed)
    budget, counts = split_events(events), _events(plan)
    assert counts.total() == events
    assert (counts["post"], counts["ack"], counts["claim"]) == (budget.posts, budget.acks, budget.claims)
    assert sum(project.acked for project in plan.expected) == budget.acked_posts
    assert sum(project.anchored for project in plan.expected) == budget.anchored_posts
    assert sum((Counter(project.events_by_type) for project in plan.expected), Counter()) == counts
    assert sum(project.collisions for project in plan.expected) >= 1


@given(fleet=_fleets, seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_every_agent_is_in_a_team_and_every_team_has_the_minimum_size(fleet: tuple[int, int], seed: int) -> None:
    plan = make_plan(*fleet, min_events(*fleet), seed)
    assert all(len(set(team)) == len(team) >= MIN_AGENTS for team in plan.teams)
    assert {agent for team in plan.teams for agent in team} == set(range(fleet[0]))
    assert all(step.agent in plan.teams[step.project] for step in plan.steps)
    assert len({agent.label for agent in plan.agents}) == fleet[0]
    assert len(set(plan.projects)) == fleet[1]


@given(fleet=_fleets, more=st.integers(0, 400), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_step_refers_only_to_results_of_earlier_steps(fleet: tuple[int, int], more: int, seed: int) -> None:
    plan = make_plan(*fleet, min_events(*fleet) + more, seed)
    tools = {"post_id": "post", "task_id": "task_create"}
    for number, step in enumerate(plan.steps):
        for value in step.arguments.values():
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, ResultRef):
                    earlier = plan.steps[item.step]
                    assert item.step < number
                    assert (earlier.project, earlier.tool) == (step.project, tools[item.field])
                if isinstance(item, LabelRef):
                    assert item.agent in plan.teams[step.project]


@given(seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_posts_are_acked_by_other_agents_and_by_each_at_most_once(seed: int) -> None:
    plan = make_plan(9, 4, 591, seed)
    acks = [(step.arguments["post_id"].step, step.agent) for step in plan.steps if step.tool == "ack"]
    assert len(set(acks)) == len(acks)
    assert all(plan.steps[post].agent != agent for post, agent in acks)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_texts_have_no_open_placeholder_and_respect_the_limits(seed: int) -> None:
    for step in make_plan(9, 4, 591, seed).steps:
        texts = [value for value in step.arguments.values() if isinstance(value, str)]
        assert not any("{" in text or "}" in text for text in texts)
        assert len(step.arguments.get("subject", "")) <= 80
        assert len(step.arguments.get("body", "")) <= 200


@pytest.mark.parametrize("fleet", [(3, 1), (9, 4), (12, 50)])
def test_one_event_less_than_the_minimum_breaks_the_mix(fleet: tuple[int, int]) -> None:
    minimum = min_events(*fleet)
    needed = split_events(minimum).other_events
    assert split_events(minimum - 1).other_events < needed
    make_plan(*fleet, minimum, seed=1)
