"""The next step of an error, in terms of the tools. The engine names no tool, so the gateway adds the sentence."""

from typing import Final

from bus.errors import BusError, Hint

_SENTENCES: Final[dict[Hint, str]] = {
    "assign_task": "Use task_assign.",
    "list_participants": "list_participants shows all of them.",
    "list_tasks": "list_tasks shows the tasks and their blockers.",
    "read_posts": "Take post_id from read_posts.",
    "resolve_task": "Use task_resolve.",
    "rotate_token": "Use admin_rotate.",
    "ship_task": "Use task_ship.",
    "start_task": "Use task_start.",
    "take_next_task": "Use task_next.",
}


def message_with_hint(error: BusError) -> str:
    """The message of an error, followed by the tool that is the next step, if there is one."""
    sentence = None if error.hint is None else _SENTENCES.get(error.hint)
    return error.message if sentence is None else f"{error.message} {sentence}"
