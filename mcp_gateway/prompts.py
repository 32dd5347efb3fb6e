"""MCP prompts, which a person picks from the client's menu."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bus.errors import InvalidArgument
from bus.rules import validation


@dataclass(frozen=True)
class Prompt:
    """A prompt.

    Attributes:
        name: its name in the protocol.
        description: its text in the client's menu.
        arguments: name, description and whether it is required, of each argument.
        build_text: builds the text from the arguments.
    """

    name: str
    description: str
    arguments: tuple[tuple[str, str, bool], ...]
    build_text: Callable[[Mapping[str, str]], str]

    def render(self, arguments: Mapping[str, str]) -> str:
        """Build the prompt's text.

        Raises:
            InvalidArgument: an argument is missing, unknown or malformed.
        """
        known_names = {name for name, _, _ in self.arguments}
        for name in arguments:
            if name not in known_names:
                shown = name[:40].encode("utf-8", "replace").decode()
                names = ", ".join(sorted(known_names)) or "none"
                raise InvalidArgument(f"{self.name} takes no argument {shown}; it takes: {names}.")
        for name, description, required in self.arguments:
            if name in arguments:
                validation.free_text(arguments[name], name, 500)
            elif required:
                raise InvalidArgument(f"{self.name} needs {name}: {description.lower()}.")
        return self.build_text(arguments)


def _start_session_text(arguments: Mapping[str, str]) -> str:
    lane = arguments.get("lane")
    register = f"Register in lane {lane} with a status" if lane else "Register your lane with a status"
    return (
        "Start a session on LLM Bus. Call whats_new until more is false and summarise in a few lines what concerns us. "
        f"{register} that describes what we are about to do. Read your inbox with "
        "read_posts(to_me=true, unacked_only=true), list the requests to us, and ack the posts that we take up. "
        "Then look at list_tasks(ready=true) and propose what to do next."
    )


def _handoff_text(arguments: Mapping[str, str]) -> str:
    about = f" about {arguments['ref']}" if "ref" in arguments else ""
    return (
        f"Hand over to {arguments['to']}{about} on LLM Bus. Write one post: what is done, what is not done, what you "
        "learned that they would otherwise have to find out again, and the one thing they should do next. Put the "
        "artifact into ref. Address a lane with to_lane or a participant with to_actor (list_participants lists both). "
        "Afterwards release your leases on the work that you hand over."
    )


PROMPTS = {
    prompt.name: prompt
    for prompt in (
        Prompt(
            "start_session",
            "Start a session: read what is new, register, and answer your inbox",
            (("lane", "The lane to register in", False),),
            _start_session_text,
        ),
        Prompt(
            "handoff",
            "Hand work over to a lane or a participant",
            (
                ("to", "A lane or a participant", True),
                ("ref", "The artifact: a PR, a commit, an ADR", False),
            ),
            _handoff_text,
        ),
    )
}
