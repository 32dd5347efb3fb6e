"""Edits of JSON text that keep everything else: comments, order, indentation and line ends."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Union

from kit.text_files import detect_newline, is_blank

# The keys of objects, and the positions in arrays.
KeyPath = tuple[Union[str, int], ...]
_BLANKS_AND_COMMENTS = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
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

    def find_child(self, key: str | int) -> Node | None:
        """Find a member of an object, or an item of an array; of several with one name the last, as clients do."""
        if isinstance(key, int):
            return self.items[key] if key < len(self.items) else None
        return next((node for name, _, node in reversed(self.members) if name == key), None)


def parse(text: str) -> Node:
    """Parse a text; comments and trailing commas are skipped.

    Raises:
        NotJsonError: the text is not JSON.
    """
    try:
        node, position = _parse_value(text, _skip_blanks(text, 1 if text.startswith("\ufeff") else 0))
    except RecursionError:
        raise NotJsonError("too many levels") from None
    if _skip_blanks(text, position) != len(text):
        raise NotJsonError(f"unexpected text at character {position}")
    return node


def read_value(text: str, path: KeyPath = ()) -> Any:
    """Read the value at a path; None if there is none."""
    node: Node | None = parse(text)
    for key in path:
        node = node.find_child(key) if node is not None else None
    return None if node is None else _to_python(node)


def set_value(text: str, path: KeyPath, value: Any) -> str:
    """Return the text with `value` at the path; missing objects on the path are created.

    Raises:
        NotJsonError: the text is not JSON, has a key twice, or a value on the path is not an object.
    """
    if is_blank(text):
        text += "{}" + detect_newline(text)
    root = node = _parse_for_edit(text)
    expected = _with_value(_to_python(root), path, value)
    for depth, key in enumerate(path):
        member = node.find_child(key)
        if member is None:
            for inner in reversed(path[depth + 1 :]):
                value = {inner: value}
            return _require(_insert_child(text, node, depth, f"{json.dumps(key)}: ", value), expected)
        node = member
    if _to_python(node) == value:
        return text
    return _require(text[: node.start] + _serialize(text, value, len(path)) + text[node.end :], expected)


def append_item(text: str, path: KeyPath, value: Any) -> str:
    """Return the text with `value` appended to the array at the path; a missing array is created.

    Raises:
        NotJsonError: the text is not JSON, has a key twice, or the value at the path is not an array.
    """
    items = None if is_blank(text) else read_value(text, path)
    if items is None:
        return set_value(text, path, [value])
    if not isinstance(items, list):
        raise NotJsonError(f"{'.'.join(map(str, path))} is not an array")
    root = node = _parse_for_edit(text)
    for key in path:
        node = node.find_child(key) or node
    expected = _with_value(_to_python(root), path, [*items, value])
    return _require(_insert_child(text, node, len(path), "", value), expected)


def remove_value(
    text: str,
    path: KeyPath,
    index: int | None = None,
    *,
    keep_empty: Callable[[KeyPath], bool] = lambda path: False,
) -> str:
    """Return the text without the member at the path, or without one item of the array there.

    Objects and arrays that become empty are removed too, except the document itself. A missing member changes nothing.

    Args:
        index: the item of the array; None removes the member.
        keep_empty: whether the object or array at a path stays when it becomes empty.

    Raises:
        NotJsonError: the text is not JSON, or has a key twice.
    """
    keys = path if index is None else (*path, index)
    trail = [_parse_for_edit(text)]
    for key in keys:
        child = trail[-1].find_child(key)
        if child is None:
            return text
        trail.append(child)
    depth = len(keys) - 1
    while depth > 0 and len(_child_spans(trail[depth])) == 1 and not keep_empty(keys[:depth]):
        depth -= 1
    key, parent = keys[depth], trail[depth]
    position = key if isinstance(key, int) else [name for name, _, _ in parent.members].index(key)
    changed = _remove_child(text, parent, position)
    parse(changed)
    return changed


def _parse_for_edit(text: str) -> Node:
    """Parse a text that can be edited: with a key twice it is unclear which of them a client reads."""
    root = parse(text)
    nodes = [root]
    while nodes:
        node = nodes.pop()
        names = [name for name, _, _ in node.members]
        if len(set(names)) < len(names):
            name = next(name for name in names if names.count(name) > 1)
            raise NotJsonError(f"the key {json.dumps(name)} is there twice")
        nodes += [*node.items, *(child for _, _, child in node.members)]
    return root


def _with_value(document: Any, path: KeyPath, value: Any, name: object = "the document") -> Any:
    if not path:
        return value
    if not isinstance(document, dict):
        raise NotJsonError(f"{name} is not an object")
    return {**document, path[0]: _with_value(document.get(path[0], {}), path[1:], value, path[0])}


def _require(text: str, expected: Any) -> str:
    """Check that an edit changed what it should and nothing else."""
    if read_value(text) != expected:
        raise NotJsonError("the edit would change more than the kit's entry")
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
    """Insert a value behind the last child of an object or array and the comments behind it, in the file's format."""
    newline, indent = detect_newline(text), _detect_indent(text)
    children = _child_spans(node)
    last_end = children[-1][1] if children else node.start + 1
    rest = text[last_end : node.end - 1]
    blanks = rest[len(rest.rstrip()) :]
    kept = rest[: len(rest) - len(blanks)]
    if children and "\n" not in text[node.start : node.end]:
        child = key_prefix + json.dumps(value, ensure_ascii=False)
        lead = " "
    else:
        lead = newline + indent * (depth + 1)
        if children:
            # Indent it like the last child, if that starts a line.
            line_start = text.rfind("\n", 0, children[-1][0]) + 1
            line_lead = text[line_start : children[-1][0]]
            if not line_lead.strip() and line_start > 0:
                lead = newline + line_lead
        child = key_prefix + _serialize(text, value, depth + 1, lead)
        if not children or "\n" not in blanks:
            blanks = newline + indent * depth
    # A file with a comma behind the last child gets one behind the new one.
    comma = _skip_blanks(text, last_end)
    has_comma = text[comma : comma + 1] == ","
    before = "," + kept if children and not has_comma else kept
    return text[:last_end] + before + lead + child + ("," if has_comma else "") + blanks + text[node.end - 1 :]


def _serialize(text: str, value: Any, depth: int, lead: str | None = None) -> str:
    newline, indent = detect_newline(text), _detect_indent(text)
    prefix = lead if lead is not None else newline + indent * depth
    return json.dumps(value, indent=indent, ensure_ascii=False).replace("\n", prefix)


def _remove_child(text: str, parent: Node, index: int) -> str:
    """Return the text without one child and its comma; the comments around it stay."""
    children = _child_spans(parent)
    start, end = children[index]
    last_end = children[index - 1][1] if index else parent.start + 1
    between = text[last_end:start]
    kept = between.rstrip()
    blanks = between[len(kept) :]
    comma = _skip_blanks(text, end)
    has_comma = text[comma : comma + 1] == ","
    after = text[end:comma] + text[comma + 1 :] if has_comma else text[end:]
    if index and index + 1 == len(children) and not has_comma:
        # The comma before it would be left over.
        last_comma = _skip_blanks(text, last_end) - last_end
        kept = kept[:last_comma] + kept[last_comma + 1 :]
    if len(children) == 1 and not kept and not after[: after.index(text[parent.end - 1])].strip():
        after = after.lstrip()
    comments = list(_COMMENT.finditer(kept))
    if comments and comments[-1].group().startswith("//") and not re.match(r"[ \t]*\r?\n", after):
        # The line end of the removed child ends this comment.
        return text[:last_end] + kept + blanks + after.lstrip(" \t")
    return text[:last_end] + kept + after


def _detect_indent(text: str) -> str:
    match = re.search(r"\n([ \t]+)\S", text)
    return match.group(1) if match else "  "
