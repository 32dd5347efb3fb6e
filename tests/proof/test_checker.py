"""The checker of histories finds each kind of broken guarantee in a history that is sound without it."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.proof.checker import Violation, check
from tests.proof.final_state import FinalState, LedgerEvent, StoredPost, StoredTask
from tests.proof.history import Operation, Outcome

_ANN, _BEN, _CLEO = "o/ann", "o/ben", "o/cleo"
_LANES = {_ANN: "build", _BEN: "review", _CLEO: "review"}


class History:
    """A sound history, and the state that it led to; a test changes one of them."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.events: list[LedgerEvent] = []
        self.posts: list[StoredPost] = []
        self.tasks: list[StoredTask] = []
        self.sequences = {"adr": 3}
        claim = {"sequence": "adr"}
        self._add(_ANN, "claim", {**claim, "note": "p:1:"}, "p:1:", {"number": 1})
        self._event(_ANN, "claim", {**claim, "number": 1, "note": "p:1:"})
        self._add(_BEN, "claim", {**claim, "note": "p:2:"}, "p:2:", {}, Outcome.UNKNOWN)
        self._event(_BEN, "claim", {**claim, "number": 2, "note": "p:2:"})
        self._add(_BEN, "claim", {**claim, "note": "p:3:"}, "p:3:", {}, Outcome.UNKNOWN)
        self._add(_ANN, "claim", {**claim, "note": "p:4:"}, "p:4:", {"number": 3})
        self._event(_ANN, "claim", {**claim, "number": 3, "note": "p:4:"})
        self._add(_ANN, "claim", {**claim, "note": "p:5:"}, "p:5:", {}, Outcome.REFUSED)
        self._add(_ANN, "post", {"to_lane": "review", "body": "p:6:"}, "p:6:", {"post_id": 4})
        self._event(_ANN, "post", {"to_lane": "review"})
        self.posts.append(StoredPost(4, _ANN, "p:6:", {_BEN: True, _CLEO: False}))
        self._add(_BEN, "ack", {"post_ids": [4]}, "", {})
        self._event(_BEN, "ack", {"post_id": 4})
        self._add(_ANN, "lease", {"surface": "a"}, "", {"fence": 6, "renewed": False})
        self._event(_ANN, "lease", {"surface": "a", "fence": 6})
        self._add(_BEN, "lease", {"surface": "b"}, "", {"fence": 7})
        self._event(_BEN, "lease", {"surface": "b", "fence": 7})
        self._add(_ANN, "task_create", {"title": "p:7:"}, "p:7:", {"task_id": 8})
        self._event(_ANN, "task_create", {"task_id": 8})
        self._add(_BEN, "task_next", {}, "", {"task": {"task_id": 8}})
        self._event(_BEN, "task_start", {"task_id": 8})
        self._add(_BEN, "task_ship", {"task_id": 8}, "", {"status": "done"})
        self._event(_BEN, "task_ship", {"task_id": 8})
        self.tasks.append(StoredTask(8, "p:7:", "done"))
        for first, last in ((1, 4), (5, 10)):
            self.read(_ANN, first, last)

    def read(self, client: str, first: int, last: int, outcome: Outcome = Outcome.OK) -> None:
        """Add a read of the ledger's events from `first` to `last`; the reader's own are counted."""
        rows = self.events[first - 1 : last]
        events = [
            {"id": row.seq, "type": row.type, "actor": row.actor, "payload": row.payload}
            for row in rows
            if row.actor != client
        ]
        result = {
            "since_event_id": first - 1,
            "cursor": last,
            "events": events,
            "left_out": {"own": len(rows) - len(events)},
        }
        self._add(client, "whats_new", {}, "", result if outcome is Outcome.OK else {}, outcome)

    def replace_operation(self, mark_or_tool: str, **changes: Any) -> None:
        """Change the operations with this mark, or of this tool."""
        self.operations = [
            replace(operation, **changes) if mark_or_tool in (operation.mark, operation.tool) else operation
            for operation in self.operations
        ]

    def replace_event(self, seq: int, **payload: Any) -> None:
        """Change the payload of an event."""
        event = self.events[seq - 1]
        self.events[seq - 1] = replace(event, payload={**event.payload, **payload})

    def violations(self) -> list[Violation]:
        """The judgement."""
        state = FinalState("p", _LANES, self.events, self.posts, self.tasks, self.sequences)
        return check(copy.deepcopy(self.operations), state)

    def _add(
        self,
        client: str,
        tool: str,
        arguments: dict[str, Any],
        mark: str,
        result: dict[str, Any],
        outcome: Outcome = Outcome.OK,
    ) -> None:
        at = float(len(self.operations))
        self.operations.append(Operation(client, "p", tool, arguments, mark, at, at + 0.5, outcome, result))

    def _event(self, actor: str, event_type: str, payload: dict[str, Any]) -> None:
        seq = len(self.events) + 1
        self.events.append(LedgerEvent(seq, float(seq), actor, event_type, payload))


def test_a_sound_history_has_no_violation() -> None:
    assert History().violations() == []


def test_merged_acks_and_counted_posts_are_no_loss() -> None:
    history = History()
    history.read(_BEN, 1, 10)
    events = history.operations[-1].result["events"]
    history.operations[-1].result["left_out"]["inbox"] = 1
    events[:] = [event for event in events if event["type"] != "post"]
    assert history.violations() == []
    history.read(_CLEO, 1, 5)
    history.operations[-1].result["events"][-1]["payload"] = {"post_id": 9, "post_ids": [4, 9]}
    assert history.violations() == []


def test_what_a_lost_answer_carried_may_be_missing() -> None:
    history = History()
    history.read(_BEN, 1, 3)
    history.read(_BEN, 4, 6, Outcome.UNKNOWN)
    history.read(_BEN, 7, 10)
    assert history.violations() == []


def _lose_event(history: History) -> None:
    del history.events[5]


def _turn_back_time(history: History) -> None:
    history.events[6] = replace(history.events[6], at=1.0)


def _claim_twice(history: History) -> None:
    history.replace_event(3, number=2)
    history.replace_operation("p:4:", result={"number": 2})


def _leave_a_gap(history: History) -> None:
    history.replace_event(3, number=4)
    history.replace_operation("p:4:", result={"number": 4})


def _move_the_sequence(history: History) -> None:
    history.sequences["adr"] = 4


def _answer_another_number(history: History) -> None:
    history.replace_operation("p:4:", result={"number": 7})


def _apply_a_retry_twice(history: History) -> None:
    history.replace_event(3, note="p:2:")
    history.replace_operation("p:4:", outcome=Outcome.UNKNOWN)


def _lose_a_claim(history: History) -> None:
    history.replace_event(3, note="p:3:")


def _apply_a_refused_claim(history: History) -> None:
    history.replace_event(2, note="p:5:")


def _claim_out_of_order(history: History) -> None:
    history.replace_event(1, number=3)
    history.replace_event(3, number=1)
    history.replace_operation("p:1:", result={"number": 3})
    history.replace_operation("p:4:", result={"number": 1})
    history.events[0], history.events[2] = (
        replace(history.events[2], seq=1, at=1.0),
        replace(history.events[0], seq=3, at=3.0),
    )


def _lose_a_post(history: History) -> None:
    history.posts.clear()


def _store_a_post_twice(history: History) -> None:
    history.posts.append(replace(history.posts[0], id=5))


def _deliver_to_too_few(history: History) -> None:
    history.posts[0] = replace(history.posts[0], deliveries={_BEN: True})


def _deliver_to_the_sender(history: History) -> None:
    history.posts[0] = replace(history.posts[0], deliveries={_ANN: False, _BEN: True, _CLEO: False})


def _store_what_was_not_sent(history: History) -> None:
    history.posts.append(StoredPost(5, _ANN, "p:99:", {_BEN: False, _CLEO: False}))


def _lose_an_ack(history: History) -> None:
    history.posts[0] = replace(history.posts[0], deliveries={_BEN: False, _CLEO: False})


def _record_an_ack_twice(history: History) -> None:
    history.events.append(replace(history.events[4], seq=11, at=11.0))


def _skip_an_event(history: History) -> None:
    history.read(_BEN, 1, 3)
    history.read(_BEN, 5, 6)


def _repeat_an_event(history: History) -> None:
    history.read(_ANN, 10, 10)


def _show_another_event(history: History) -> None:
    history.operations[-1].result["events"][0]["type"] = "register"


def _hide_an_event(history: History) -> None:
    del history.operations[-1].result["events"][0]


def _show_a_later_event(history: History) -> None:
    history.operations[-1].result["events"].append({"id": 11, "type": "ack", "actor": _BEN, "payload": {}})


def _count_too_many(history: History) -> None:
    history.operations[-1].result["left_out"]["own"] += 1


def _give_a_fence_twice(history: History) -> None:
    history.replace_operation("lease", result={"fence": 6})


def _turn_back_a_fence(history: History) -> None:
    history.operations[8].result["fence"] = 5


def _start_a_done_task(history: History) -> None:
    history.events.append(LedgerEvent(11, 11.0, _ANN, "task_start", {"task_id": 8}))


def _lose_a_task_event(history: History) -> None:
    history.tasks[0] = replace(history.tasks[0], status="in_progress")


def _give_a_task_to_two(history: History) -> None:
    history.replace_operation("task_next", client=_CLEO)


def _lose_a_ship(history: History) -> None:
    history.replace_operation("task_ship", client=_ANN)


def _show_another_project(history: History) -> None:
    history.operations[-1].result["events"][0]["note"] = "q:17:"


@pytest.mark.parametrize(
    ("plant", "rule"),
    [
        (_lose_event, "ledger"),
        (_turn_back_time, "ledger"),
        (_claim_twice, "claims"),
        (_leave_a_gap, "claims"),
        (_move_the_sequence, "claims"),
        (_answer_another_number, "claims"),
        (_apply_a_retry_twice, "claims"),
        (_lose_a_claim, "claims"),
        (_apply_a_refused_claim, "claims"),
        (_claim_out_of_order, "claims"),
        (_lose_a_post, "posts"),
        (_store_a_post_twice, "posts"),
        (_deliver_to_too_few, "posts"),
        (_deliver_to_the_sender, "posts"),
        (_store_what_was_not_sent, "posts"),
        (_lose_an_ack, "acks"),
        (_record_an_ack_twice, "acks"),
        (_skip_an_event, "cursors"),
        (_repeat_an_event, "cursors"),
        (_show_another_event, "cursors"),
        (_hide_an_event, "cursors"),
        (_show_a_later_event, "cursors"),
        (_count_too_many, "cursors"),
        (_give_a_fence_twice, "fences"),
        (_turn_back_a_fence, "fences"),
        (_start_a_done_task, "tasks"),
        (_lose_a_task_event, "tasks"),
        (_give_a_task_to_two, "tasks"),
        (_lose_a_ship, "tasks"),
        (_show_another_project, "isolation"),
    ],
)
def test_a_planted_violation_is_found(plant: Callable[[History], None], rule: str) -> None:
    history = History()
    plant(history)
    assert rule in {violation.rule for violation in history.violations()}
