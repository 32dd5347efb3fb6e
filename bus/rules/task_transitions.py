"""The life of a task: which verb leads from which status to which, and what may wait for what."""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Literal, get_args

from bus.errors import BusError, Hint

Status = Literal["open", "assigned", "in_progress", "blocked", "done"]
Action = Literal["assign", "start", "block", "resolve", "ship", "requeue"]
STATUSES: tuple[Status, ...] = get_args(Status)
ACTIONS: tuple[Action, ...] = get_args(Action)

# What is not listed is refused. `start` and `resolve` also look at the open blockers; see after().
TRANSITIONS: Mapping[tuple[str, str], Status] = MappingProxyType(
    {
        ("assign", "open"): "assigned",
        ("assign", "assigned"): "assigned",
        ("start", "open"): "in_progress",
        ("start", "assigned"): "in_progress",
        ("block", "in_progress"): "blocked",
        ("resolve", "open"): "open",
        ("resolve", "assigned"): "assigned",
        ("resolve", "blocked"): "in_progress",
        ("ship", "in_progress"): "done",
        ("requeue", "in_progress"): "open",
    }
)

_BLOCKED: tuple[str, Hint] = ("Task is blocked; resolve its blockers first.", "resolve_task")

# One refusal for each pair of action and status; a status that refuses all actions alike has its entry under "".
_REFUSALS: Mapping[tuple[str, str], tuple[str, Hint | None]] = MappingProxyType(
    {
        ("", "open"): ("Task is open; start it first.", "start_task"),
        ("", "assigned"): ("Task is assigned but not started; start it first.", "start_task"),
        ("", "blocked"): _BLOCKED,
        ("", "done"): ("Task is done; create a new one.", None),
        ("assign", "in_progress"): ("Task is in progress; let its assignee ship it, or create a new one.", None),
        ("start", "in_progress"): ("Task is already in progress; take another.", "take_next_task"),
        ("resolve", "in_progress"): ("Task is in progress and waits for nothing; ship it.", "ship_task"),
    }
)


def next_status(action: str, status: str, open_blockers: int = 0) -> str:
    """The status that a verb leads to.

    Args:
        verb: one of VERBS.
        status: the present status, one of STATUSES.
        open_blockers: for `start`, how many the task has; for `resolve`, how many remain once this one is
            gone. Other verbs don't look at it.
    Returns:
        The next status; the present one if the verb changes something else (a reassignment, a blocker of a
        task that has not started).
    Raises:
        BusError: wrong_state, with `status`, if the verb does not apply; its message says what to do next.
    """
    after_ = TRANSITIONS.get((action, status))
    if after_ is None:
        message, hint = _REFUSALS.get((action, status)) or _REFUSALS["", status]
        raise BusError("wrong_state", message, hint=hint, status=status)
    if action == "start" and open_blockers:
        waits = "1 blocker; resolve it" if open_blockers == 1 else f"{open_blockers} blockers; resolve them"
        message = f"Task waits for {waits} first or take another task."
        raise BusError("wrong_state", message, hint="take_next_task", status=status)
    if action == "resolve" and open_blockers:
        return status
    return after_


def would_create_cycle(edges: Mapping[int, Collection[int]], task_id: int, blocking_task_id: int) -> bool:
    """Whether `task` waiting for `on` would make a task wait for itself.

    Args:
        edges: for each task, those it waits for; a task without an entry waits for none. Only what is
            reachable from `on` is read.
    """
    seen: set[int] = set()
    todo = [blocking_task_id]
    while todo:
        here = todo.pop()
        if here == task_id:
            return True
        if here not in seen:
            seen.add(here)
            todo.extend(edges.get(here, ()))
    return False
