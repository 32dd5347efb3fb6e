"""Change a JSON file of somebody else and leave the rest as it is: comments, order, indentation, line ends."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

Path = tuple[str, ...]
_BLANK = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_ATOM = re.compile(r"[^\s,\]}/]+")


class NotJsonError(ValueError):
    """The text is not JSON, nor JSON with comments."""


@dataclass
class Node:
    """A value and where it stands: text[start:end]. `members` of an object are (key, where the key begins, value)."""

    kind: str
    start: int
    end: int
    value: Any = None
    members: list[tuple[str, int, Node]] = field(default_factory=list)
    items: list[Node] = field(default_factory=list)

    def get(self, key: str) -> Node | None:
        """The member of an object."""
        return next((node for name, _, node in self.members if name == key), None)


def parse(text: str) -> Node:
    """The tree of a text; comments and trailing commas are passed over.

    Raises:
        NotJsonError: it is something else.
    """
    node, at = _value(text, _skip(text, 1 if text.startswith("\ufeff") else 0))
    if _skip(text, at) != len(text):
        raise NotJsonError(f"something follows at character {at}")
    return node


def read(text: str, path: Path = ()) -> Any:
    """The value at a path; None where there is none."""
    node: Node | None = parse(text)
    for key in path:
        node = node.get(key) if node is not None else None
    return None if node is None else _plain(node)


def put(text: str, path: Path, value: Any) -> str:
    """The text with `value` at the path; objects on the way are made.

    Raises:
        NotJsonError: it is not JSON, or something that is no object stands in the way.
    """
    if not text.strip("\ufeff \t\r\n"):
        text += "{}" + _newline(text)
    node = parse(text)
    for depth, key in enumerate(path):
        if node.kind != "object":
            raise NotJsonError(f"{'.'.join(path[:depth]) or 'it'} is no object")
        found = node.get(key)
        if found is None:
            for inner in reversed(path[depth + 1 :]):
                value = {inner: value}
            return _insert(text, node, depth, f"{json.dumps(key)}: ", value)
        node = found
    if _plain(node) == value:
        return text
    return text[: node.start] + _written(text, value, len(path)) + text[node.end :]


def append(text: str, path: Path, value: Any) -> str:
    """The text with `value` behind the last item of the array at the path, which is made if it is not there.

    Raises:
        NotJsonError: as put(), or what stands there is no array.
    """
    if not text.strip("\ufeff \t\r\n") or read(text, path) is None:
        return put(text, path, [value])
    node = parse(text)
    for key in path:
        found = node.get(key)
        if found is None:
            raise NotJsonError(f"{'.'.join(path)} is not there")
        node = found
    if node.kind != "array":
        raise NotJsonError(f"{'.'.join(path)} is no array")
    return _insert(text, node, len(path), "", value)


def remove(text: str, path: Path, index: int | None = None) -> str:
    """The text without the member at the path, or without one item of the array there; unchanged if it is not there.

    What holds nothing afterwards goes too, up to the top.
    """
    trail = [parse(text)]
    for key in path:
        found = trail[-1].get(key)
        if found is None:
            return text
        trail.append(found)
    if index is not None:
        array = trail[-1]
        if array.kind != "array" or index >= len(array.items):
            return text
        if len(array.items) > 1:
            return _cut(text, array, index)
    keys = list(path)
    while keys:
        parent = trail[len(keys) - 1]
        if len(parent.members) > 1 or len(keys) == 1:
            at = next(number for number, member in enumerate(parent.members) if member[0] == keys[-1])
            return _cut(text, parent, at)
        keys.pop()
    return text


def _skip(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _value(text: str, at: int) -> tuple[Node, int]:
    opening = text[at : at + 1]
    if opening in ("{", "["):
        return _container(text, at, "object" if opening == "{" else "array")
    found = (_STRING if opening == '"' else _ATOM).match(text, at)
    if not found:
        raise NotJsonError(f"no value at character {at}")
    try:
        value = json.loads(found.group())
    except ValueError:
        raise NotJsonError(f"no value at character {at}") from None
    return Node("atom", at, found.end(), value), found.end()


def _container(text: str, start: int, kind: str) -> tuple[Node, int]:
    closing = "}" if kind == "object" else "]"
    node = Node(kind, start, start)
    at = _skip(text, start + 1)
    while text[at : at + 1] != closing:
        begins = at
        key = ""
        if kind == "object":
            found = _STRING.match(text, at)
            if not found:
                raise NotJsonError(f"no name at character {at}")
            key = json.loads(found.group())
            at = _skip(text, found.end())
            if text[at : at + 1] != ":":
                raise NotJsonError(f"no ':' at character {at}")
            at = _skip(text, at + 1)
        value, at = _value(text, at)
        if kind == "object":
            node.members.append((key, begins, value))
        else:
            node.items.append(value)
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != closing:
            raise NotJsonError(f"no ',' at character {at}")
    node.end = at + 1
    return node, at + 1


def _plain(node: Node) -> Any:
    if node.kind == "object":
        return {key: _plain(value) for key, _, value in node.members}
    if node.kind == "array":
        return [_plain(item) for item in node.items]
    return node.value


def _children(node: Node) -> list[tuple[int, int]]:
    if node.kind == "object":
        return [(begins, value.end) for _, begins, value in node.members]
    return [(item.start, item.end) for item in node.items]


def _insert(text: str, node: Node, depth: int, label: str, value: Any) -> str:
    """Behind the last child of an object or array, in the manner of the file."""
    newline, indent = _newline(text), _indent(text)
    children = _children(node)
    inner = newline + indent * (depth + 1)
    if children:
        # As far in as its neighbour stands, if that begins a line.
        begins = text.rfind("\n", 0, children[-1][0]) + 1
        lead = text[begins : children[-1][0]]
        if not lead.strip() and begins > 0:
            inner = newline + lead
    written = label + _written(text, value, depth + 1, inner)
    if not children:
        # What stands between the brackets already, a comment perhaps, stays.
        held = text[node.start + 1 : node.end - 1].rstrip()
        return text[: node.start + 1] + held + inner + written + newline + indent * depth + text[node.end - 1 :]
    end = children[-1][1]
    rest = text[end : node.end - 1]
    comma = _skip(text, end)
    if text[comma : comma + 1] == ",":
        return text[: comma + 1] + inner + written + text[comma + 1 :]
    if "\n" not in text[node.start : node.end]:
        return text[:end] + ", " + label + json.dumps(value, ensure_ascii=False) + rest + text[node.end - 1 :]
    return text[:end] + "," + inner + written + rest + text[node.end - 1 :]


def _written(text: str, value: Any, depth: int, lead: str | None = None) -> str:
    newline, indent = _newline(text), _indent(text)
    prefix = lead if lead is not None else newline + indent * depth
    return json.dumps(value, indent=indent, ensure_ascii=False).replace("\n", prefix)


def _cut(text: str, parent: Node, index: int) -> str:
    """Without one child, and without the comma that it needed."""
    children = _children(parent)
    start, end = children[index]
    if index + 1 < len(children):
        return text[:start] + text[children[index + 1][0] :]
    comma = _skip(text, end)
    if text[comma : comma + 1] == ",":
        end = comma + 1
    if index:
        return text[: children[index - 1][1]] + text[end:]
    inside = text[parent.start + 1 : start].rstrip()
    return text[: parent.start + 1] + inside + text[end:].lstrip(" \t\r\n")


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _indent(text: str) -> str:
    found = re.search(r"\n([ \t]+)\S", text)
    return found.group(1) if found else "  "
