"""The state machine of tasks: which action leads from which status to which, and the check for cycles."""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Literal, get_args

from bus.errors import BusError, Hint
from bus.rules.enums import TaskStatus

Action = Literal["assign", "start", "block", "resolve", "ship", "requeue"]
ACTIONS: tuple[Action, ...] = get_args(Action)

# Pairs that are absent are refused. `start` and `resolve` also depend on the open blockers; see next_status().
TRANSITIONS: Mapping[tuple[str, str], TaskStatus] = MappingProxyType(
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

# Message and hint for each refused pair of action and status; "" stands for every action without its own entry.
_REFUSALS: Mapping[tuple[str, str], tuple[str, Hint | None]] = MappingProxyType(
    {
        ("", "open"): ("Task is open; start it first.", "start_task"),
        ("", "assigned"): ("Task is assigned but not started; start it first.", "start_task"),
        ("", "blocked"): ("Task is blocked; resolve its blockers first.", "resolve_task"),
        ("", "done"): ("Task is done; create a new one.", None),
        ("assign", "in_progress"): ("Task is in progress; let its assignee ship it, or create a new one.", None),
        ("start", "in_progress"): ("Task is already in progress; take another.", "take_next_task"),
        ("resolve", "in_progress"): ("Task is in progress and has no blockers; ship it.", "ship_task"),
    }
)


def next_status(action: str, status: str, open_blockers: int = 0) -> str:
    """Return the status that an action leads to.

    Args:
        action: one of ACTIONS.
        status: the present status, one of TASK_STATUSES.
        open_blockers: for `start` the number of open blockers, for `resolve` the number that remains afterwards;
            ignored by other actions.
    Returns:
        The next status; the present one if the action changes something else (a reassignment, a blocker of a
        task that has not started).
    Raises:
        BusError: `wrong_state` with `status`, if the status does not permit the action; the message names a next step.
    """
    target = TRANSITIONS.get((action, status))
    if target is None:
        message, hint = _REFUSALS.get((action, status)) or _REFUSALS["", status]
        raise BusError("wrong_state", message, hint=hint, status=status)
    if action == "start" and open_blockers:
        blockers = "1 blocker; resolve it" if open_blockers == 1 else f"{open_blockers} blockers; resolve them"
        message = f"Task waits for {blockers} first or take another task."
        raise BusError("wrong_state", message, hint="take_next_task", status=status)
    if action == "resolve" and open_blockers:
        return status
    return target


def would_create_cycle(edges: Mapping[int, Collection[int]], task_id: int, blocking_task_id: int) -> bool:
    """Whether a task would wait for itself, directly or indirectly, if it waited for `blocking_task_id`.

    Args:
        edges: for each task the tasks it waits for; a task without an entry waits for none. Only tasks that are
            reachable from `blocking_task_id` are read.
    """
    visited: set[int] = set()
    pending = [blocking_task_id]
    while pending:
        current = pending.pop()
        if current == task_id:
            return True
        if current not in visited:
            visited.add(current)
            pending.extend(edges.get(current, ()))
    return False
