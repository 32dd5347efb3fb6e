"""Scripts: the model's answers in one session, and the requests that it received.

The first `[[script:NAME]]` in the user's words of a request says which script the session follows, so requests for a
title, which clients send beside it, take no step.
"""

import itertools
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.clients.stub_model.model_api import Answer, ModelRequest, ToolCall

_MARKER = re.compile(r"\[\[script:([\w.-]+)\]\]")
_SIDE_ANSWER = Answer("A title")
_LAST_ANSWER = Answer("Nothing left to do.")


@dataclass(frozen=True)
class Step:
    """One answer of a script: a call of a tool, or a text that ends the turn.

    Attributes:
        label: names the step in the checks of the bench.
        tool: the tool's name without the prefix of its server; None for a text.
        arguments: those of the call, or a function that builds them from what the model was sent.
        text: the text without a call.
        before: runs before the answer is sent; so something happens at this moment of the session.
    """

    label: str
    tool: str | None = None
    arguments: dict[str, Any] | Callable[[ModelRequest], dict[str, Any]] = field(default_factory=dict)
    text: str | None = None
    before: Callable[[], object] | None = None


@dataclass(frozen=True)
class Exchange:
    """A request of a session, and its answer.

    Attributes:
        label: of the step that answered; None after the last step.
        missing_tool: the tool of the step, if the client did not offer it.
    """

    request: ModelRequest
    label: str | None
    answer: Answer
    missing_tool: str | None = None


class Script:
    """The steps of one session. Methods may be called by several threads."""

    _numbers = itertools.count(1)

    def __init__(self, steps: Sequence[Step]) -> None:
        # Every name has the same length, so requests of two sessions can be compared by their size.
        self.name = f"s{next(self._numbers):04d}"
        self.exchanges: list[Exchange] = []
        self._steps = list(steps)
        self._is_loading = False
        self._lock = threading.Lock()

    @property
    def marker(self) -> str:
        """The text for the user's prompt that assigns the session to this script."""
        return f"[[script:{self.name}]]"

    def answer(self, request: ModelRequest) -> Answer:
        """Answer a request with the next step, and record both."""
        with self._lock:
            exchange = self._take_step(request)
            self.exchanges.append(exchange)
        return exchange.answer

    def find_request_after(self, label: str) -> ModelRequest | None:
        """Return the request that followed a step, with the result of its call; None if the client sent none."""
        index = self._find_index(label)
        following = [] if index is None else self.exchanges[index + 1 :]
        return following[0].request if following else None

    def list_requests_before(self, label: str) -> list[ModelRequest]:
        """Return the requests up to the one that a step answered; all if none reached it."""
        index = self._find_index(label)
        return [exchange.request for exchange in self.exchanges[: None if index is None else index + 1]]

    def _find_index(self, label: str) -> int | None:
        indexes = (index for index, exchange in enumerate(self.exchanges) if exchange.label == label)
        return next(indexes, None)

    def _take_step(self, request: ModelRequest) -> Exchange:
        if not self._steps:
            return Exchange(request, None, _LAST_ANSWER)
        step = self._steps[0]
        name = request.find_tool(step.tool) if step.tool is not None else None
        if step.tool is not None and name is None:
            loading_call = request.api.find_loading_call(request, step.tool)
            if loading_call is not None and not self._is_loading:
                self._is_loading = True
                return Exchange(request, None, Answer(None, (loading_call,)))
        self._steps.pop(0)
        self._is_loading = False
        if step.before is not None:
            step.before()
        if step.tool is None:
            return Exchange(request, step.label, Answer(step.text))
        if name is None:
            return Exchange(request, step.label, Answer(f"No tool {step.tool} is offered."), step.tool)
        arguments = step.arguments(request) if callable(step.arguments) else step.arguments
        return Exchange(request, step.label, Answer(None, (ToolCall(name, arguments),)))


class ScriptBook:
    """The scripts of all sessions, by the marker in their prompts."""

    def __init__(self) -> None:
        self._scripts: dict[str, Script] = {}

    def add(self, steps: Sequence[Step]) -> Script:
        script = Script(steps)
        self._scripts[script.name] = script
        return script

    def answer(self, request: ModelRequest) -> Answer:
        """Answer a request from its script. Requests without tools take no step."""
        matches = (match for text in request.user_texts if (match := _MARKER.search(text)))
        marker = next(matches, None)
        if marker is None or not request.tools or marker[1] not in self._scripts:
            return _SIDE_ANSWER
        return self._scripts[marker[1]].answer(request)
