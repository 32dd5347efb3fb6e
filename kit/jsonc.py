"""Change a JSON file of somebody else and leave the rest as it is: comments, order, indentation, line ends."""

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
    """A value and where it stands: text[start:end]. `members` of an object are (key, where the key begins, value)."""

    kind: str
    start: int
    end: int
    value: Any = None
    members: list[tuple[str, int, Node]] = field(default_factory=list)
    items: list[Node] = field(default_factory=list)

    def find_member(self, key: str) -> Node | None:
        """The member of an object."""
        return next((node for name, _, node in self.members if name == key), None)


def parse(text: str) -> Node:
    """The tree of a text; comments and trailing commas are passed over.

    Raises:
        NotJsonError: it is something else.
    """
    node, at = _parse_value(text, _skip_blanks(text, 1 if text.startswith("\ufeff") else 0))
    if _skip_blanks(text, at) != len(text):
        raise NotJsonError(f"something follows at character {at}")
    return node


def read_value(text: str, path: KeyPath = ()) -> Any:
    """The value at a path; None where there is none."""
    node: Node | None = parse(text)
    for key in path:
        node = node.find_member(key) if node is not None else None
    return None if node is None else _to_python(node)


def set_value(text: str, path: KeyPath, value: Any) -> str:
    """The text with `value` at the path; objects on the way are made.

    Raises:
        NotJsonError: it is not JSON, or something that is no object stands in the way.
    """
    if not text.strip("\ufeff \t\r\n"):
        text += "{}" + _detect_newline(text)
    node = parse(text)
    for depth, key in enumerate(path):
        if node.kind != "object":
            raise NotJsonError(f"{'.'.join(path[:depth]) or 'it'} is no object")
        found = node.find_member(key)
        if found is None:
            for inner in reversed(path[depth + 1 :]):
                value = {inner: value}
            return _insert_child(text, node, depth, f"{json.dumps(key)}: ", value)
        node = found
    if _to_python(node) == value:
        return text
    return text[: node.start] + _serialize(text, value, len(path)) + text[node.end :]


def append_item(text: str, path: KeyPath, value: Any) -> str:
    """The text with `value` behind the last item of the array at the path, which is made if it is not there.

    Raises:
        NotJsonError: as put(), or what stands there is no array.
    """
    if not text.strip("\ufeff \t\r\n") or read_value(text, path) is None:
        return set_value(text, path, [value])
    node = parse(text)
    for key in path:
        found = node.find_member(key)
        if found is None:
            raise NotJsonError(f"{'.'.join(path)} is not there")
        node = found
    if node.kind != "array":
        raise NotJsonError(f"{'.'.join(path)} is no array")
    return _insert_child(text, node, len(path), "", value)


def remove_value(text: str, path: KeyPath, index: int | None = None) -> str:
    """The text without the member at the path, or without one item of the array there; unchanged if it is not there.

    What holds nothing afterwards goes too, up to the top.
    """
    trail = [parse(text)]
    for key in path:
        found = trail[-1].find_member(key)
        if found is None:
            return text
        trail.append(found)
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
            at = next(number for number, member in enumerate(parent.members) if member[0] == keys[-1])
            return _remove_child(text, parent, at)
        keys.pop()
    return text


def _skip_blanks(text: str, at: int) -> int:
    found = _BLANKS_AND_COMMENTS.match(text, at)
    return found.end() if found else at


def _parse_value(text: str, at: int) -> tuple[Node, int]:
    opening = text[at : at + 1]
    if opening in ("{", "["):
        return _parse_container(text, at, "object" if opening == "{" else "array")
    found = (_STRING if opening == '"' else _ATOM).match(text, at)
    if not found:
        raise NotJsonError(f"no value at character {at}")
    try:
        value = json.loads(found.group())
    except ValueError:
        raise NotJsonError(f"no value at character {at}") from None
    return Node("atom", at, found.end(), value), found.end()


def _parse_container(text: str, start: int, kind: str) -> tuple[Node, int]:
    closing = "}" if kind == "object" else "]"
    node = Node(kind, start, start)
    at = _skip_blanks(text, start + 1)
    while text[at : at + 1] != closing:
        begins = at
        key = ""
        if kind == "object":
            found = _STRING.match(text, at)
            if not found:
                raise NotJsonError(f"no name at character {at}")
            key = json.loads(found.group())
            at = _skip_blanks(text, found.end())
            if text[at : at + 1] != ":":
                raise NotJsonError(f"no ':' at character {at}")
            at = _skip_blanks(text, at + 1)
        value, at = _parse_value(text, at)
        if kind == "object":
            node.members.append((key, begins, value))
        else:
            node.items.append(value)
        at = _skip_blanks(text, at)
        if text[at : at + 1] == ",":
            at = _skip_blanks(text, at + 1)
        elif text[at : at + 1] != closing:
            raise NotJsonError(f"no ',' at character {at}")
    node.end = at + 1
    return node, at + 1


def _to_python(node: Node) -> Any:
    if node.kind == "object":
        return {key: _to_python(value) for key, _, value in node.members}
    if node.kind == "array":
        return [_to_python(item) for item in node.items]
    return node.value


def _child_spans(node: Node) -> list[tuple[int, int]]:
    if node.kind == "object":
        return [(begins, value.end) for _, begins, value in node.members]
    return [(item.start, item.end) for item in node.items]


def _insert_child(text: str, node: Node, depth: int, key_prefix: str, value: Any) -> str:
    """Behind the last child of an object or array, in the manner of the file."""
    newline, indent = _detect_newline(text), _detect_indent(text)
    children = _child_spans(node)
    inner = newline + indent * (depth + 1)
    if children:
        # As far in as its neighbour stands, if that begins a line.
        begins = text.rfind("\n", 0, children[-1][0]) + 1
        lead = text[begins : children[-1][0]]
        if not lead.strip() and begins > 0:
            inner = newline + lead
    written = key_prefix + _serialize(text, value, depth + 1, inner)
    if not children:
        # What stands between the brackets already, a comment perhaps, stays.
        held = text[node.start + 1 : node.end - 1].rstrip()
        return text[: node.start + 1] + held + inner + written + newline + indent * depth + text[node.end - 1 :]
    end = children[-1][1]
    rest = text[end : node.end - 1]
    comma = _skip_blanks(text, end)
    if text[comma : comma + 1] == ",":
        return text[: comma + 1] + inner + written + text[comma + 1 :]
    if "\n" not in text[node.start : node.end]:
        return text[:end] + ", " + key_prefix + json.dumps(value, ensure_ascii=False) + rest + text[node.end - 1 :]
    return text[:end] + "," + inner + written + rest + text[node.end - 1 :]


def _serialize(text: str, value: Any, depth: int, lead: str | None = None) -> str:
    newline, indent = _detect_newline(text), _detect_indent(text)
    prefix = lead if lead is not None else newline + indent * depth
    return json.dumps(value, indent=indent, ensure_ascii=False).replace("\n", prefix)


def _remove_child(text: str, parent: Node, index: int) -> str:
    """Without one child, and without the comma that it needed."""
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
    found = re.search(r"\n([ \t]+)\S", text)
    return found.group(1) if found else "  "
