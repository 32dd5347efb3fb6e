"""The planner: the shares that it promises, and that a plan follows from its numbers alone."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.demo.model import LabelRef, Plan, ResultRef
from cli.demo.plan import MIN_AGENTS, make_plan, min_events, split_events

_fleets = st.tuples(st.integers(MIN_AGENTS, 40), st.integers(1, 20))


def _events(plan: Plan) -> Counter[str]:
    return Counter(kind for step in plan.steps for kind in step.events)


def test_the_default_fleet_does_what_the_original_did_in_eight_days() -> None:
    plan = make_plan(9, 4, 591, seed=1)
    events = _events(plan)
    assert (len(plan.agents), len(plan.projects), events.total()) == (9, 4, 591)
    assert round((events["post"] + events["ack"]) / 591, 3) == 0.775
    assert round(events["claim"] / 591, 3) == 0.073
    assert round(sum(project.acked for project in plan.expected) / events["post"], 3) == 0.903
    assert round(sum(project.anchored for project in plan.expected) / events["post"], 2) == 0.88


def test_every_project_shows_everything_when_there_is_room() -> None:
    for project in make_plan(9, 4, 591, seed=1).expected:
        assert project.collisions >= 1
        shown = {
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
        assert shown <= set(project.events_by_type)


def test_the_same_seed_gives_the_same_plan_and_another_one_another() -> None:
    assert make_plan(9, 4, 591, seed=7) == make_plan(9, 4, 591, seed=7)
    assert make_plan(9, 4, 591, seed=7) != make_plan(9, 4, 591, seed=8)


@given(fleet=_fleets, more=st.integers(0, 400), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_plan_holds_exactly_what_its_budget_says(fleet: tuple[int, int], more: int, seed: int) -> None:
    events = min_events(*fleet) + more
    plan = make_plan(*fleet, events, seed)
    shares, found = split_events(events), _events(plan)
    assert found.total() == events
    assert (found["post"], found["ack"], found["claim"]) == (shares.posts, shares.acks, shares.claims)
    assert sum(project.acked for project in plan.expected) == shares.acked_posts
    assert sum(project.anchored for project in plan.expected) == shares.anchored_posts
    assert sum((Counter(project.events_by_type) for project in plan.expected), Counter()) == found
    assert sum(project.collisions for project in plan.expected) >= 1


@given(fleet=_fleets, seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_everybody_works_and_nobody_works_alone(fleet: tuple[int, int], seed: int) -> None:
    plan = make_plan(*fleet, min_events(*fleet), seed)
    assert all(len(set(team)) == len(team) >= MIN_AGENTS for team in plan.teams)
    assert {agent for team in plan.teams for agent in team} == set(range(fleet[0]))
    assert all(step.agent in plan.teams[step.project] for step in plan.steps)
    assert len({agent.label for agent in plan.agents}) == fleet[0]
    assert len(set(plan.projects)) == fleet[1]


@given(fleet=_fleets, more=st.integers(0, 400), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_step_names_only_what_was_answered_before_it(fleet: tuple[int, int], more: int, seed: int) -> None:
    plan = make_plan(*fleet, min_events(*fleet) + more, seed)
    makers = {"post_id": "post", "task_id": "task_create"}
    for number, step in enumerate(plan.steps):
        for value in step.arguments.values():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, ResultRef):
                    earlier = plan.steps[one.step]
                    assert one.step < number
                    assert (earlier.project, earlier.tool) == (step.project, makers[one.field])
                if isinstance(one, LabelRef):
                    assert one.agent in plan.teams[step.project]


@given(seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_posts_are_acked_by_others_than_their_senders_and_by_each_once(seed: int) -> None:
    plan = make_plan(9, 4, 591, seed)
    acks = [(step.arguments["post_id"].step, step.agent) for step in plan.steps if step.tool == "ack"]
    assert len(set(acks)) == len(acks)
    assert all(plan.steps[post].agent != agent for post, agent in acks)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_what_a_fleet_says_has_no_gap_and_fits_the_tools(seed: int) -> None:
    for step in make_plan(9, 4, 591, seed).steps:
        said = [value for value in step.arguments.values() if isinstance(value, str)]
        assert not any("{" in text or "}" in text for text in said)
        assert len(step.arguments.get("subject", "")) <= 80
        assert len(step.arguments.get("body", "")) <= 200


@pytest.mark.parametrize("fleet", [(3, 1), (9, 4), (12, 50)])
def test_with_one_event_less_the_mix_could_not_be_kept(fleet: tuple[int, int]) -> None:
    least = min_events(*fleet)
    needed = split_events(least).other_events
    assert split_events(least - 1).other_events < needed
    make_plan(*fleet, least, seed=1)
