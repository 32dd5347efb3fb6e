"""Comparison of a ledger with the plan of a demo."""

from dataclasses import replace

from bus.analytics.reports import EventTypeShare, ProjectReport
from cli.demo.check import find_differences
from cli.demo.model import ExpectedCounts

_PLANNED = ExpectedCounts({"post": 3, "ack": 2}, acked=2, anchored=1, collisions=0)
_REPORT = ProjectReport(
    projects=("owner/demo",),
    agents=2,
    events=5,
    mix=(EventTypeShare("post", 3, 0.6), EventTypeShare("ack", 2, 0.4)),
    handoff_and_ack_share=1.0,
    handoffs=3,
    acked=2,
    acked_share=2 / 3,
    surface_median_seconds=1.0,
    surface_p90_seconds=1.0,
    ack_median_seconds=1.0,
    ack_p90_seconds=1.0,
    anchored=1,
    anchored_share=1 / 3,
    leases=0,
    collisions=0,
    claims=0,
    claimed={},
    tasks_shipped=0,
    first_event_at=None,
    last_event_at=None,
)


def test_a_ledger_that_matches_the_plan_has_no_differences() -> None:
    assert list(find_differences(_PLANNED, _REPORT)) == []


def test_each_metric_that_differs_from_the_plan_is_named() -> None:
    expected = replace(_PLANNED, events_by_type={"post": 3, "ack": 2, "claim": 1}, acked=3, collisions=1)
    assert list(find_differences(expected, _REPORT)) == [
        "owner/demo: claim: 0, planned 1",
        "owner/demo: acknowledged handoffs: 2, planned 3",
        "owner/demo: reported collisions: 0, planned 1",
    ]


def test_events_that_the_bus_adds_are_ignored() -> None:
    lapsed = replace(_REPORT, mix=(*_REPORT.mix, EventTypeShare("presence_lapse", 1, 0.1)))
    assert list(find_differences(_PLANNED, lapsed)) == []
