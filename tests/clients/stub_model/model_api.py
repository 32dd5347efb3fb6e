"""Terms that the APIs of all models share: a request with tools, and an answer with text and calls of tools."""

import itertools
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

_ids = itertools.count(1)


@dataclass(frozen=True)
class ToolCall:
    """A call that the model makes; `name` is the full name that the client offered."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the model answers: text, calls of tools, or both. Without calls it ends the turn."""

    text: str | None
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Event:
    """A server-sent event; `name` is None where the API sends only data."""

    name: str | None
    data: Any

    def encode(self) -> str:
        data = self.data if isinstance(self.data, str) else json.dumps(self.data, ensure_ascii=False)
        return (f"event: {self.name}\n" if self.name else "") + f"data: {data}\n\n"


@dataclass(frozen=True)
class Rendering:
    """An answer in the form of one API: `document` for a client that asks for one, `events` for a stream."""

    document: dict[str, Any]
    events: list[Event]


@dataclass(frozen=True)
class ModelRequest:
    """A request of a client.

    Attributes:
        body: the parsed JSON.
        size: bytes of the body as received.
        received_at: monotonic clock.
    """

    api: "ModelApi"
    body: dict[str, Any]
    size: int
    received_at: float

    @cached_property
    def tools(self) -> dict[str, int]:
        """The bytes of each offered tool by its name."""
        return {name: count_bytes(definition) for name, definition in self.api.list_tools(self.body)}

    @cached_property
    def texts(self) -> list[str]:
        """Each piece of text outside the tools' definitions, in order."""
        return list(iterate_texts({key: value for key, value in self.body.items() if key != "tools"}))

    @cached_property
    def user_texts(self) -> list[str]:
        """The texts of the user's messages."""
        return list(self.api.list_user_texts(self.body))

    @property
    def prompt_size(self) -> int:
        """The bytes of the request without the tools' definitions."""
        return self.size - sum(self.tools.values())

    def contains(self, text: str) -> bool:
        return any(text in candidate for candidate in self.texts)

    def find_last(self, pattern: str) -> str | None:
        """The first group of the last match in the texts."""
        matches = [match for text in self.texts for match in re.finditer(pattern, text)]
        return matches[-1][1] if matches else None

    def find_tool(self, name: str) -> str | None:
        """The full name of the offered tool `name`, which clients prefix with the name of its server."""
        if name in self.tools:
            return name
        pattern = re.compile(rf"[_/.:]{re.escape(name)}$")
        return next((full_name for full_name in self.tools if pattern.search(full_name)), None)


class ModelApi(ABC):
    """The form of requests and answers of one API."""

    @abstractmethod
    def list_tools(self, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the name and the definition of each offered tool."""

    @abstractmethod
    def list_user_texts(self, body: dict[str, Any]) -> Iterator[str]:
        """Yield the texts of the user's messages, in order."""

    @abstractmethod
    def render(self, body: dict[str, Any], answer: Answer) -> Rendering:
        """Put an answer into the form of this API."""

    def find_loading_call(self, request: ModelRequest, name: str) -> ToolCall | None:
        """Return the call that loads a tool of which the client sends the name only; None if there is none."""
        return None


def iterate_texts(value: Any) -> Iterator[str]:
    """Yield each string in a JSON value, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from iterate_texts(child)


def count_bytes(value: Any) -> int:
    """Count the bytes of a value as compact JSON, which the clients send."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def new_id(prefix: str) -> str:
    return f"{prefix}_{next(_ids):08d}"
