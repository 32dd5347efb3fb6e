"""Expected results of the tools of tasks."""

from collections.abc import Sequence
from typing import Any

from tests.proof.isolation.model import Caller, Participation, Project, Refused, Task, contains_words

Content = dict[str, Any]


def task_create(
    project: Project,
    caller: Caller,
    title: str,
    lane: str | None = None,
    owner: str | None = None,
    priority: int = 2,
    blocked_on: Sequence[int] = (),
    idempotency_key: str | None = None,
) -> Content:
    creator = project.authenticate(caller, is_write=True)
    blocking = tuple(dict.fromkeys(blocked_on))
    arguments = ("task_create", title, lane, owner, priority, blocking)
    stored = project.find_result(creator, idempotency_key, arguments)
    if stored is not None:
        return stored
    assignee = None if owner is None else project.find_addressable(owner, creator.owner)
    if any(task_id not in project.tasks for task_id in blocking):
        raise Refused("not_found")
    unfinished = [task_id for task_id in blocking if project.tasks[task_id].status != "done"]
    owner_name = None if assignee is None else assignee.actor
    task = Task(len(project.tasks) + 1, title, lane, assignee, owner_name, priority)
    task.status = "open" if assignee is None else "assigned"
    task.blockers = [(task_id, None) for task_id in unfinished]
    project.tasks[task.id] = task
    project.record(
        creator,
        "task_create",
        task_id=task.id,
        title=title,
        lane=lane,
        owner=task.owner,
        priority=priority,
        blocked_on=unfinished,
    )
    content = {"task_id": task.id, "status": task.status}
    project.store_result(creator, idempotency_key, arguments, content)
    return content


def task_assign(project: Project, caller: Caller, task_id: int, owner: str) -> Content:
    assigner = project.authenticate(caller, is_write=True)
    task = _get(project, task_id)
    assignee = project.find_addressable(owner, assigner.owner)
    _require_status(task, "open", "assigned")
    if (task.status, task.assignee) != ("assigned", assignee):
        task.status, task.assignee, task.owner = "assigned", assignee, assignee.actor
        project.record(assigner, "task_assign", task_id=task_id, owner=task.owner)
    return {"task_id": task_id, "owner": assignee.actor, "status": task.status}


def task_start(project: Project, caller: Caller, task_id: int) -> Content:
    me = project.authenticate(caller, is_write=True)
    task = _get(project, task_id)
    _require_status(task, "open", "assigned")
    if task.blockers:
        raise Refused("wrong_state")
    _require_assignee_or_admin(task, me)
    _start(project, task, me)
    return {"task_id": task_id, "status": task.status}


def task_block(project: Project, caller: Caller, task_id: int, reason: str, on: int | None = None) -> Content:
    me = project.authenticate(caller, is_write=True)
    task = _get(project, task_id)
    _require_status(task, "in_progress")
    _require_assignee_or_admin(task, me)
    if on is not None:
        blocking = _get(project, on)
        if task_id in project.waits_for(on):
            raise Refused("conflict")
        if blocking.status == "done":
            raise Refused("wrong_state")
    task.status, task.blockers = "blocked", [(on, reason)]
    project.record(me, "task_block", task_id=task_id, reason=reason, on=on)
    return {"task_id": task_id, "status": task.status}


def task_resolve(project: Project, caller: Caller, task_id: int, blocker: int | None = None) -> Content:
    me = project.authenticate(caller, is_write=True)
    task = _get(project, task_id)
    if not task.blockers:
        raise Refused("wrong_state")
    remaining = [] if blocker is None else [pair for pair in task.blockers if pair[0] != blocker]
    if len(remaining) == len(task.blockers):
        raise Refused("not_found")
    task.blockers = remaining
    if task.status == "blocked" and not remaining:
        task.status = "in_progress"
    project.record(me, "task_resolve", task_id=task_id, blocker=blocker, status=task.status)
    return {"task_id": task_id, "status": task.status}


def task_ship(project: Project, caller: Caller, task_id: int, ref: str | None = None) -> Content:
    me = project.authenticate(caller, is_write=True)
    task = _get(project, task_id)
    _require_status(task, "in_progress")
    _require_assignee_or_admin(task, me)
    task.status = "done"
    unblocked = []
    continued = []
    for other in project.tasks.values():
        remaining = [pair for pair in other.blockers if pair[0] != task_id]
        if len(remaining) == len(other.blockers):
            continue
        other.blockers = remaining
        if not remaining:
            unblocked.append(other.id)
            if other.status == "blocked":
                other.status = "in_progress"
                continued.append(other)
    project.record(me, "task_ship", task_id=task_id, ref=ref, unblocked=unblocked)
    for other in continued:
        project.record(me, "task_resolve", task_id=other.id, blocker=task_id, status=other.status)
    return {"task_id": task_id, "status": "done", "unblocked": unblocked}


def edit(project: Project, caller: Caller, task_id: int, title: str, lane: str | None, priority: int) -> Content:
    """An edit in the web; details of tasks are not part of the model."""
    me = project.authenticate(caller, is_write=True)
    task = _get(project, task_id)
    _require_assignee_or_admin(task, me)
    if task.status == "done":
        raise Refused("wrong_state")
    values = {"title": title, "lane": lane, "priority": priority}
    changed = {name: value for name, value in values.items() if getattr(task, name) != value}
    if changed:
        task.title, task.lane, task.priority = title, lane, priority
        project.record(me, "task_edit", task_id=task_id, **changed)
    return {"task_id": task_id, "status": task.status}


def task_next(project: Project, caller: Caller, lane: str | None = None) -> Content:
    me = project.authenticate(caller, is_write=True)
    return {"task": take_next(project, me, lane)}


def list_tasks(
    project: Project,
    caller: Caller,
    status: str | None = None,
    owner: str | None = None,
    lane: str | None = None,
    ready: bool | None = None,
    text: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> Content:
    me = project.authenticate(caller)
    assignee = None
    if owner is not None:
        assignee = project.find(owner, me.owner)
        if assignee is None:
            raise Refused("unknown_recipient")
    matches = [
        task
        for task in reversed(project.tasks.values())
        if (status is None or task.status == status)
        and (assignee is None or task.assignee is assignee)
        and (lane is None or task.lane == lane)
        and (ready is None or ready == (task.status in ("open", "assigned") and not task.blockers))
        and (text is None or contains_words(text, task.title))
        and (before is None or task.id < before)
    ]
    page = matches[:limit]
    return {
        "tasks": [_render(task) for task in page],
        "next_before": page[-1].id if len(matches) > limit else None,
    }


def take_next(project: Project, me: Participation, lane: str | None = None) -> Content | None:
    """Start the first task that is ready for a participation."""
    task = _find_first_ready(project, me, lane)
    if task is None:
        return None
    _start(project, task, me)
    return _render_ready(task)


def offer_next(project: Project, me: Participation) -> Content | None:
    """Offer the first task that is ready and not on offer; an offer outlasts the run."""
    task = _find_first_ready(project, me, None, only_unoffered=True)
    if task is None:
        return None
    task.is_offered = True
    return _render_ready(task)


def _find_first_ready(
    project: Project, me: Participation, lane: str | None, *, only_unoffered: bool = False
) -> Task | None:
    ready = [
        task
        for task in project.tasks.values()
        if task.is_ready_for(me) and lane in (None, task.lane) and not (only_unoffered and task.is_offered)
    ]
    return min(ready, key=lambda task: (task.priority, task.id), default=None)


def _start(project: Project, task: Task, me: Participation) -> None:
    task.status = "in_progress"
    if task.assignee is None:
        task.assignee, task.owner = me, me.actor
    project.record(me, "task_start", task_id=task.id, owner=task.owner)


def _get(project: Project, task_id: int) -> Task:
    if task_id not in project.tasks:
        raise Refused("not_found")
    return project.tasks[task_id]


def _require_status(task: Task, *statuses: str) -> None:
    if task.status not in statuses:
        raise Refused("wrong_state")


def _require_assignee_or_admin(task: Task, me: Participation) -> None:
    if task.assignee not in (None, me) and not me.is_admin:
        raise Refused("forbidden")


def _render(task: Task) -> Content:
    rendered = {
        "task_id": task.id,
        "title": task.title,
        "lane": task.lane,
        "owner": task.owner,
        "status": task.status,
        "blockers": [{"on": on, "reason": reason} for on, reason in task.blockers],
    }
    return rendered if task.priority == 2 else rendered | {"priority": task.priority}


def _render_ready(task: Task) -> Content:
    return _render(task) | {"priority": task.priority, "detail": None}
