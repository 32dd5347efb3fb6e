"""Edits of JSON text that keep everything else: comments, order, indentation and line ends."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

KeyPath = tuple[str, ...]
_BLANKS_AND_COMMENTS = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_ATOM = re.compile(r"[^\s,\]}/]+")


class NotJsonError(ValueError):
    """The text is not JSON, nor JSON with comments."""


@dataclass
class Node:
    """A value and its position, `text[start:end]`.

    Attributes:
        members: of an object, as (key, start of the key, value).
    """

    kind: str
    start: int
    end: int
    value: Any = None
    members: list[tuple[str, int, Node]] = field(default_factory=list)
    items: list[Node] = field(default_factory=list)

    def find_member(self, key: str) -> Node | None:
        """Find a member of an object."""
        return next((node for name, _, node in self.members if name == key), None)


def parse(text: str) -> Node:
    """Parse a text; comments and trailing commas are skipped.

    Raises:
        NotJsonError: the text is not JSON.
    """
    node, position = _parse_value(text, _skip_blanks(text, 1 if text.startswith("\ufeff") else 0))
    if _skip_blanks(text, position) != len(text):
        raise NotJsonError(f"unexpected text at character {position}")
    return node


def read_value(text: str, path: KeyPath = ()) -> Any:
    """Read the value at a path; None if there is none."""
    node: Node | None = parse(text)
    for key in path:
        node = node.find_member(key) if node is not None else None
    return None if node is None else _to_python(node)


def set_value(text: str, path: KeyPath, value: Any) -> str:
    """Return the text with `value` at the path; missing objects on the path are created.

    Raises:
        NotJsonError: the text is not JSON, or a value on the path is not an object.
    """
    if not text.strip("\ufeff \t\r\n"):
        text += "{}" + _detect_newline(text)
    node = parse(text)
    for depth, key in enumerate(path):
        if node.kind != "object":
            raise NotJsonError(f"{'.'.join(path[:depth]) or 'the document'} is not an object")
        member = node.find_member(key)
        if member is None:
            for inner in reversed(path[depth + 1 :]):
                value = {inner: value}
            return _insert_child(text, node, depth, f"{json.dumps(key)}: ", value)
        node = member
    if _to_python(node) == value:
        return text
    return text[: node.start] + _serialize(text, value, len(path)) + text[node.end :]


def append_item(text: str, path: KeyPath, value: Any) -> str:
    """Return the text with `value` appended to the array at the path; a missing array is created.

    Raises:
        NotJsonError: the text is not JSON, or the value at the path is not an array.
    """
    if not text.strip("\ufeff \t\r\n") or read_value(text, path) is None:
        return set_value(text, path, [value])
    node = parse(text)
    for key in path:
        member = node.find_member(key)
        if member is None:
            raise NotJsonError(f"{'.'.join(path)} is missing")
        node = member
    if node.kind != "array":
        raise NotJsonError(f"{'.'.join(path)} is not an array")
    return _insert_child(text, node, len(path), "", value)


def remove_value(text: str, path: KeyPath, index: int | None = None) -> str:
    """Return the text without the member at the path, or without one item of the array there.

    Objects and arrays that become empty are removed too, except the document itself. A missing member changes nothing.
    """
    trail = [parse(text)]
    for key in path:
        member = trail[-1].find_member(key)
        if member is None:
            return text
        trail.append(member)
    if index is not None:
        array = trail[-1]
        if array.kind != "array" or index >= len(array.items):
            return text
        if len(array.items) > 1:
            return _remove_child(text, array, index)
    keys = list(path)
    while keys:
        parent = trail[len(keys) - 1]
        if len(parent.members) > 1 or len(keys) == 1:
            position = next(index for index, (name, _, _) in enumerate(parent.members) if name == keys[-1])
            return _remove_child(text, parent, position)
        keys.pop()
    return text


def _skip_blanks(text: str, position: int) -> int:
    match = _BLANKS_AND_COMMENTS.match(text, position)
    return match.end() if match else position


def _parse_value(text: str, position: int) -> tuple[Node, int]:
    opening = text[position : position + 1]
    if opening in ("{", "["):
        return _parse_container(text, position, "object" if opening == "{" else "array")
    match = (_STRING if opening == '"' else _ATOM).match(text, position)
    if not match:
        raise NotJsonError(f"no value at character {position}")
    try:
        value = json.loads(match.group())
    except ValueError:
        raise NotJsonError(f"no value at character {position}") from None
    return Node("atom", position, match.end(), value), match.end()


def _parse_container(text: str, start: int, kind: str) -> tuple[Node, int]:
    closing = "}" if kind == "object" else "]"
    node = Node(kind, start, start)
    position = _skip_blanks(text, start + 1)
    while text[position : position + 1] != closing:
        key_start = position
        key = ""
        if kind == "object":
            match = _STRING.match(text, position)
            if not match:
                raise NotJsonError(f"no name at character {position}")
            key = json.loads(match.group())
            position = _skip_blanks(text, match.end())
            if text[position : position + 1] != ":":
                raise NotJsonError(f"no ':' at character {position}")
            position = _skip_blanks(text, position + 1)
        value, position = _parse_value(text, position)
        if kind == "object":
            node.members.append((key, key_start, value))
        else:
            node.items.append(value)
        position = _skip_blanks(text, position)
        if text[position : position + 1] == ",":
            position = _skip_blanks(text, position + 1)
        elif text[position : position + 1] != closing:
            raise NotJsonError(f"no ',' at character {position}")
    node.end = position + 1
    return node, position + 1


def _to_python(node: Node) -> Any:
    if node.kind == "object":
        return {key: _to_python(value) for key, _, value in node.members}
    if node.kind == "array":
        return [_to_python(item) for item in node.items]
    return node.value


def _child_spans(node: Node) -> list[tuple[int, int]]:
    if node.kind == "object":
        return [(key_start, value.end) for _, key_start, value in node.members]
    return [(item.start, item.end) for item in node.items]


def _insert_child(text: str, node: Node, depth: int, key_prefix: str, value: Any) -> str:
    """Insert a value behind the last child of an object or array, in the format of the file."""
    newline, indent = _detect_newline(text), _detect_indent(text)
    children = _child_spans(node)
    inner = newline + indent * (depth + 1)
    if children:
        # Indent it like the last child, if that starts a line.
        line_start = text.rfind("\n", 0, children[-1][0]) + 1
        lead = text[line_start : children[-1][0]]
        if not lead.strip() and line_start > 0:
            inner = newline + lead
    child = key_prefix + _serialize(text, value, depth + 1, inner)
    if not children:
        # Keep the text between the brackets, such as a comment.
        comment = text[node.start + 1 : node.end - 1].rstrip()
        return text[: node.start + 1] + comment + inner + child + newline + indent * depth + text[node.end - 1 :]
    end = children[-1][1]
    rest = text[end : node.end - 1]
    comma = _skip_blanks(text, end)
    if text[comma : comma + 1] == ",":
        return text[: comma + 1] + inner + child + text[comma + 1 :]
    if "\n" not in text[node.start : node.end]:
        return text[:end] + ", " + key_prefix + json.dumps(value, ensure_ascii=False) + rest + text[node.end - 1 :]
    return text[:end] + "," + inner + child + rest + text[node.end - 1 :]


def _serialize(text: str, value: Any, depth: int, lead: str | None = None) -> str:
    newline, indent = _detect_newline(text), _detect_indent(text)
    prefix = lead if lead is not None else newline + indent * depth
    return json.dumps(value, indent=indent, ensure_ascii=False).replace("\n", prefix)


def _remove_child(text: str, parent: Node, index: int) -> str:
    """Return the text without one child and its comma."""
    children = _child_spans(parent)
    start, end = children[index]
    if index + 1 < len(children):
        return text[:start] + text[children[index + 1][0] :]
    comma = _skip_blanks(text, end)
    if text[comma : comma + 1] == ",":
        end = comma + 1
    if index:
        return text[: children[index - 1][1]] + text[end:]
    inside = text[parent.start + 1 : start].rstrip()
    return text[: parent.start + 1] + inside + text[end:].lstrip(" \t\r\n")


def _detect_newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _detect_indent(text: str) -> str:
    match = re.search(r"\n([ \t]+)\S", text)
    return match.group(1) if match else "  "
