"""Edits of TOML text that keep everything else; each result is read again and compared with the intended one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kit.text_files import detect_newline, gap_before_block
from kit.toml_reader import BARE_KEY, KeyPath, NotTomlError, parse


def set_table(text: str, path: KeyPath, values: Mapping[str, str], marks: tuple[str, str]) -> str:
    """Return the text with a table of strings at a path.

    A table that is there keeps its other keys, its comments and its place; a new one is appended, between two marks.

    Args:
        values: the strings by key.
        marks: the comment lines before and behind a new table.

    Raises:
        NotTomlError: the text is not TOML, or a table at this path cannot be added to it.
    """
    document = parse(text)
    expected = _with_table(document.root, path, values)
    is_written = any(
        statement.path == path or (statement.kind == "pair" and statement.path[:-1] == path)
        for statement in document.statements
    )
    if not is_written:
        newline = detect_newline(text)
        name = ".".join(_format_key(key) for key in path)
        lines = [marks[0], f"[{name}]", *(f"{_format_key(key)} = {quote(values[key])}" for key in values), marks[1]]
        changed = text + gap_before_block(text) + newline.join(lines) + newline
    else:
        changed = text
        for key in values:
            changed = _set_string(changed, path, key, values[key])
    _require(changed, expected, f"{'.'.join(path)} cannot be added, because of how {path[0]} is written")
    return changed


def remove_table(text: str, path: KeyPath, marks: tuple[str, str]) -> str:
    """Return the text without the table at a path, its sub-tables and the marks.

    Comments and everything else that stands between them stay.

    Raises:
        NotTomlError: the text is not TOML, or the table is a part of an inline table.
    """
    document = parse(text)
    expected = _without(document.root, path)
    spans = []
    for statement in document.statements_below(path):
        start, end = _line_span(text, statement.start, statement.end)
        if statement.kind != "pair":
            start = _include_blank_line(text, start)
        spans.append((start, end))
    for start, end in document.comments:
        if text[start:end].rstrip() in marks and not text[_line_span(text, start, end)[0] : start].strip("\ufeff \t"):
            line_start, line_end = _line_span(text, start, end)
            if text[start:end].rstrip() == marks[0]:
                line_start = _include_newline(text, line_start)
            spans.append((line_start, line_end))
    changed = text
    for start, end in sorted(_merge(spans), reverse=True):
        changed = changed[:start] + changed[end:]
    _require(changed, expected, f"{'.'.join(path)} is a part of another value")
    return changed


def is_between(text: str, path: KeyPath, marks: tuple[str, str]) -> bool:
    """Whether the header of a table stands between two marks, in which case it is not the user's."""
    document = parse(text)
    headers = [statement.start for statement in document.statements if statement.path == path]
    comments = {text[start:end].rstrip(): start for start, end in document.comments}
    return bool(headers) and comments.get(marks[0], len(text)) < headers[0] < comments.get(marks[1], -1)


def quote(text: str) -> str:
    """Write a string."""
    escaped = "".join(
        f"\\{char}" if char in '"\\' else f"\\u{ord(char):04x}" if ord(char) < 32 or ord(char) == 127 else char
        for char in text
    )
    return f'"{escaped}"'


def _format_key(key: str) -> str:
    return key if BARE_KEY.fullmatch(key) else quote(key)


def _set_string(text: str, path: KeyPath, key: str, value: str) -> str:
    document = parse(text)
    if document.find((*path, key)) == value:
        return text
    for statement in document.statements:
        if statement.kind == "pair" and statement.path == (*path, key):
            return text[: statement.value_start] + quote(value) + text[statement.end :]
    for statement in document.statements:
        if statement.kind == "table" and statement.path == path:
            _, line_end = _line_span(text, statement.start, statement.end)
            newline = detect_newline(text)
            gap = "" if text[:line_end].endswith("\n") else newline
            return text[:line_end] + gap + f"{_format_key(key)} = {quote(value)}{newline}" + text[line_end:]
    raise NotTomlError(f"{'.'.join(path)} is written inline")


def _line_span(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the span of the lines of a statement, with the last line's end, without a byte order mark."""
    line_start = max(text.rfind("\n", 0, start) + 1, 1 if text.startswith("\ufeff") else 0)
    line_end = text.find("\n", end) + 1
    return line_start, line_end or len(text)


def _include_newline(text: str, position: int) -> int:
    """Return the position before one newline that stands directly before it."""
    if text[position - 2 : position] == "\r\n":
        return position - 2
    return position - 1 if text[position - 1 : position] == "\n" else position


def _include_blank_line(text: str, line_start: int) -> int:
    """Return the start of the blank line before a line, or of the line itself."""
    before = _include_newline(text, line_start)
    is_blank = before < line_start and (before == 0 or text[before - 1] == "\n")
    return before if is_blank else line_start


def _merge(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _with_table(root: Mapping[str, Any], path: KeyPath, values: Mapping[str, str]) -> dict[str, Any]:
    if not path:
        return {**root, **values}
    inner = root.get(path[0], {})
    if not isinstance(inner, dict):
        raise NotTomlError(f"{path[0]} is not a table")
    return {**root, path[0]: _with_table(inner, path[1:], values)}


def _without(root: Mapping[str, Any], path: KeyPath) -> dict[str, Any]:
    rest = dict(root)
    inner = rest.pop(path[0], None)
    if isinstance(inner, dict) and len(path) > 1:
        rest[path[0]] = _without(inner, path[1:])
    return rest


def _require(text: str, expected: Mapping[str, Any], message: str) -> None:
    """Check that an edit changed what it should and nothing else; a table that became empty may be gone."""
    try:
        root = parse(text).root
    except NotTomlError:
        raise NotTomlError(message) from None
    if _without_empty(root) != _without_empty(expected):
        raise NotTomlError(message)


def _without_empty(root: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in root.items() if value != {}}
