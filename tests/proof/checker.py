"""The judgement of a history: what the guarantees of the bus forbid, and a run shows nevertheless.

Every rule compares the answers with the final state. An operation whose answer was lost may or may not have been
applied, but never twice; an answered one was applied exactly once; a refused one not at all.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from bus.rules.task_transitions import TRANSITIONS
from tests.proof.final_state import FinalState, LedgerEvent
from tests.proof.history import Operation, Outcome


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken guarantee."""

    rule: str
    detail: str


def check(operations: list[Operation], state: FinalState) -> list[Violation]:
    """Judge the operations of one project against its final state."""
    own = [operation for operation in operations if operation.project == state.project]
    rules: tuple[Callable[[list[Operation], FinalState], Iterator[Violation]], ...] = (
        _check_ledger,
        _check_claims,
        _check_posts,
        _check_acks,
        _check_cursors,
        _check_fences,
        _check_tasks,
        _check_isolation,
    )
    return [violation for rule in rules for violation in rule(own, state)]


def _check_ledger(_: list[Operation], state: FinalState) -> Iterator[Violation]:
    """The events of a project are numbered 1, 2, 3 ... and their times do not go back."""
    for position, event in enumerate(state.events, start=1):
        if event.seq != position:
            yield Violation("ledger", f"event {position} is missing; the next is {event.seq}")
            return
    for earlier, later in zip(state.events, state.events[1:], strict=False):
        if later.at < earlier.at:
            yield Violation("ledger", f"event {later.seq} is older than event {earlier.seq}")


def _check_claims(operations: list[Operation], state: FinalState) -> Iterator[Violation]:
    """Numbers are gap-free and unique, an answered claim is in the ledger once, and real time orders them."""
    events = [event for event in state.events if event.type == "claim"]
    numbers = defaultdict(list)
    for event in events:
        numbers[event.payload["sequence"]].append(event.payload["number"])
    for sequence, claimed in numbers.items():
        if claimed != list(range(1, len(claimed) + 1)):
            yield Violation("claims", f"{sequence} was claimed as {_summarise(claimed)}")
    for sequence, current in state.sequences.items():
        if current != len(numbers[sequence]):
            yield Violation("claims", f"{sequence} stands at {current} after {len(numbers[sequence])} claims")
    claims = [operation for operation in operations if operation.tool == "claim"]
    yield from _check_applied_once("claims", claims, Counter(event.payload["note"] or "" for event in events))
    numbers_by_note = {event.payload["note"]: event.payload["number"] for event in events}
    for operation in _answered(claims):
        number = operation.result["number"]
        if numbers_by_note.get(operation.mark, number) != number:
            yield Violation("claims", f"{operation.mark} was answered {number}, the ledger has another number")
    for sequence in state.sequences:
        answered = [operation for operation in _answered(claims) if operation.arguments["sequence"] == sequence]
        # A retry is answered with the number of its first attempt, so only first attempts have a place in time.
        yield from _check_real_time_order(
            "claims", _without_retries(answered, claims), lambda claim: int(claim.result["number"])
        )


def _check_posts(operations: list[Operation], state: FinalState) -> Iterator[Violation]:
    """An answered post is stored once, and delivered to exactly those whom it addressed."""
    posts = [operation for operation in operations if operation.tool == "post"]
    yield from _check_applied_once("posts", posts, Counter(post.body for post in state.posts))
    stored = {post.body: post for post in state.posts}
    for operation in posts:
        post = stored.get(operation.mark)
        if post is None:
            continue
        if operation.outcome is Outcome.OK and operation.result["post_id"] != post.id:
            yield Violation("posts", f"{operation.mark} was answered {operation.result['post_id']}, it is {post.id}")
        to_lane, to_actor = operation.arguments.get("to_lane"), operation.arguments.get("to_actor")
        expected = {actor for actor, lane in state.lanes.items() if lane == to_lane and actor != operation.client}
        if to_actor is not None:
            expected.add(to_actor)
        if post.deliveries.keys() != expected:
            yield Violation(
                "posts", f"post {post.id} was delivered to {sorted(post.deliveries)}, not {sorted(expected)}"
            )


def _check_acks(operations: list[Operation], state: FinalState) -> Iterator[Violation]:
    """An answered ack is stored, and in the ledger at most once for each recipient."""
    events = Counter((event.actor, event.payload["post_id"]) for event in state.events if event.type == "ack")
    for (actor, post_id), count in events.items():
        if count > 1:
            yield Violation("acks", f"{actor} acknowledged post {post_id} {count} times in the ledger")
    posts = {post.id: post for post in state.posts}
    for operation in _answered(operation for operation in operations if operation.tool == "ack"):
        for post_id in operation.arguments["post_ids"]:
            post = posts.get(post_id)
            if post is None or not post.deliveries.get(operation.client) or not events[operation.client, post_id]:
                yield Violation("acks", f"the ack of post {post_id} by {operation.client} is lost")


def _check_cursors(operations: list[Operation], state: FinalState) -> Iterator[Violation]:
    """Each reader's reads follow each other without a gap; only what a lost answer carried may be missing."""
    reads = defaultdict(list)
    for operation in operations:
        if operation.tool == "whats_new":
            reads[operation.client].append(operation)
    addressed = {(actor, post.id) for post in state.posts for actor in post.deliveries}
    for reader, calls in reads.items():
        # The first read decides where the cursor begins: a hundred events before the end at most.
        position, after_loss = next((call.result["since_event_id"] for call in _answered(calls)), 0), False
        for call in calls:
            if call.outcome is not Outcome.OK:
                after_loss = True
                continue
            start, end = call.result["since_event_id"], call.result["cursor"]
            if start < position:
                yield Violation("cursors", f"{reader} saw events {start + 1} to {position} again")
            elif start > position and not after_loss:
                yield Violation("cursors", f"{reader} missed events {position + 1} to {start}")
            yield from _check_digest(call, state.events[start:end], addressed)
            position, after_loss = end, False


def _check_digest(call: Operation, events: list[LedgerEvent], addressed: set[tuple[str, int]]) -> Iterator[Violation]:
    """A digest lists its events, or counts those that its reader knows: its own, and the posts of its inbox."""
    listed = {event["id"]: event for event in call.result["events"]}
    if list(listed) != sorted(listed) or len(listed) != len(call.result["events"]):
        yield Violation("cursors", f"{call.client} saw events out of order: {list(listed)[:20]}")
    for event in events:
        if event.seq in listed and listed.pop(event.seq)["type"] != event.type:
            yield Violation("cursors", f"{call.client} saw event {event.seq} as another than {event.type}")
    if listed:
        yield Violation(
            "cursors", f"{call.client} saw events {list(listed)[:20]}, which the ledger does not have there"
        )
    shown = {event["id"] for event in call.result["events"]}
    merged = {
        (event["actor"], post_id)
        for event in call.result["events"]
        for post_id in event["payload"].get("post_ids", ())
        if event["type"] == "ack"
    }
    absent = [
        event
        for event in events
        if event.seq not in shown and not (event.type == "ack" and (event.actor, event.payload["post_id"]) in merged)
    ]
    own = [event for event in absent if event.actor == call.client]
    inbox = [event for event in absent if event.type == "post" and (call.client, event.seq) in addressed]
    left_out = call.result.get("left_out") or {}
    if len(own) != left_out.get("own", 0) or len(inbox) != left_out.get("inbox", 0):
        yield Violation("cursors", f"{call.client} had {left_out} counted for {len(own)} and {len(inbox)} events")
    if len(absent) != len(own) + len(inbox):
        yield Violation("cursors", f"{call.client} was not shown all events after {call.result['since_event_id']}")


def _check_fences(operations: list[Operation], _: FinalState) -> Iterator[Violation]:
    """The fences of new leases are unique and increase with real time."""
    acquired = [
        operation
        for operation in _answered(operation for operation in operations if operation.tool == "lease")
        if not operation.result.get("renewed")
    ]
    for fence, count in Counter(operation.result["fence"] for operation in acquired).items():
        if count > 1:
            yield Violation("fences", f"fence {fence} was given {count} times")
    yield from _check_real_time_order("fences", acquired, lambda lease: int(lease.result["fence"]))


def _check_tasks(operations: list[Operation], state: FinalState) -> Iterator[Violation]:
    """Each task's events are a legal history that ends in its status, and nothing answered is missing."""
    histories: defaultdict[int, list[LedgerEvent]] = defaultdict(list)
    for event in state.events:
        if event.type.startswith("task_"):
            histories[event.payload["task_id"]].append(event)
    creations = [operation for operation in operations if operation.tool == "task_create"]
    yield from _check_applied_once("tasks", creations, Counter(task.title for task in state.tasks))
    for task in state.tasks:
        status = ""
        for event in histories[task.id]:
            action = event.type.removeprefix("task_")
            following: str | None = TRANSITIONS.get((action, status))
            if (action, status) == ("create", ""):
                following = "assigned" if event.payload.get("owner") else "open"
            if following is None:
                yield Violation("tasks", f"task {task.id}: {action} while {status or 'absent'}")
                break
            status = following
        else:
            if status != task.status:
                yield Violation("tasks", f"task {task.id} is {task.status}, its events lead to {status}")
    started = {(event.payload["task_id"], event.actor) for event in state.events if event.type == "task_start"}
    shipped = {(event.payload["task_id"], event.actor) for event in state.events if event.type == "task_ship"}
    for operation in _answered(operations):
        if operation.tool == "task_next" and operation.result["task"] is not None:
            if (operation.result["task"]["task_id"], operation.client) not in started:
                yield Violation("tasks", f"{operation.client} was given a task that it did not start")
        elif operation.tool == "task_ship" and (operation.arguments["task_id"], operation.client) not in shipped:
            yield Violation("tasks", f"task {operation.arguments['task_id']}, shipped by {operation.client}, is not")


def _check_isolation(operations: list[Operation], state: FinalState) -> Iterator[Violation]:
    """No result carries a mark of another project. A mark begins with its project."""
    for operation in _answered(operations):
        for text in _texts(operation.result):
            project, colon, rest = text.partition(":")
            if colon and rest.rstrip(":").isdigit() and project != state.project:
                yield Violation("isolation", f"{operation.client} in {state.project} was shown {text}")


def _check_applied_once(rule: str, operations: list[Operation], counts: Counter[str]) -> Iterator[Violation]:
    outcomes: defaultdict[str, set[Outcome]] = defaultdict(set)
    for operation in operations:
        outcomes[operation.mark].add(operation.outcome)
    for mark, seen in outcomes.items():
        count = counts[mark]
        if count > 1:
            yield Violation(rule, f"{mark} was applied {count} times")
        elif Outcome.OK in seen and count == 0:
            yield Violation(rule, f"{mark} was answered and is lost")
        elif seen == {Outcome.REFUSED} and count:
            yield Violation(rule, f"{mark} was refused and applied")
    for mark in counts.keys() - outcomes.keys():
        yield Violation(rule, f"{mark!r} is stored, and no client sent it")


def _check_real_time_order(
    rule: str, operations: list[Operation], number: Callable[[Operation], int]
) -> Iterator[Violation]:
    """An operation that began after another was answered has the greater number."""
    by_completion = sorted(operations, key=lambda operation: operation.completed_at)
    position, highest = 0, 0
    for operation in sorted(operations, key=lambda operation: operation.invoked_at):
        while position < len(by_completion) and by_completion[position].completed_at < operation.invoked_at:
            highest = max(highest, number(by_completion[position]))
            position += 1
        if number(operation) <= highest:
            yield Violation(rule, f"{number(operation)} was given after {highest} had been answered")


def _answered(operations: Iterable[Operation]) -> list[Operation]:
    return [operation for operation in operations if operation.outcome is Outcome.OK]


def _without_retries(answered: list[Operation], all_operations: list[Operation]) -> list[Operation]:
    attempts = Counter(operation.mark for operation in all_operations)
    return [operation for operation in answered if attempts[operation.mark] == 1]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _summarise(numbers: list[int]) -> str:
    wrong = next((index for index, number in enumerate(numbers) if number != index + 1), len(numbers))
    return f"{numbers[max(0, wrong - 2) : wrong + 3]} at position {wrong + 1}"
