"""Path patterns with the semantics of the bus: a pattern covers a path exactly if a lease on it would."""

from __future__ import annotations

import re
from functools import lru_cache

_CHARACTER_CLASS = re.compile(r"\[!?[^/][^\]/]*\]")
_MAX_ALTERNATIVES = 256


def covers(pattern: str, path: str, ignore_case: bool = False) -> bool:
    """Whether `pattern` names `path`, matches it, or names a folder that contains it.

    Args:
        pattern: a path, a directory or a glob: `*` and `?` stay within a segment, `**` takes whole segments,
            `[a-z]` is a class, `{a,b}` are alternatives. A literal path covers everything below it.
        path: a relative path with `/`.
        ignore_case: whether the paths of the project ignore case.
    """
    return any(expression.match(path) is not None for expression in _compile(pattern, ignore_case))


@lru_cache(maxsize=1024)
def _compile(pattern: str, ignore_case: bool) -> tuple[re.Pattern[str], ...]:
    expressions = []
    for alternative in expand_alternatives(pattern):
        segments = [segment for segment in alternative.split("/") if segment not in ("", ".")] or ["**"]
        has_wildcard = any("*" in segment or "?" in segment for segment in segments)
        has_class = any(_CHARACTER_CLASS.search(segment) for segment in segments)
        children = "" if has_wildcard else "(?:/.*)?"
        expressions.append(_build_expression(segments, False) + children)
        if has_class:
            expressions.append(_build_expression(segments, True))
    flags = re.DOTALL | re.IGNORECASE if ignore_case else re.DOTALL
    return tuple(re.compile(expression + r"\Z", flags) for expression in expressions)


def _build_expression(segments: list[str], use_classes: bool) -> str:
    """Build the regular expression of one alternative; brackets are classes or literal characters."""
    expression = ""
    for index, segment in enumerate(segments):
        is_last = index == len(segments) - 1
        if segment == "**":
            expression += "[^/]+(?:/[^/]+)*" if is_last else "(?:[^/]+/)*"
            continue
        expression += _build_segment(segment, use_classes)
        if not is_last:
            # `a/**` covers the paths below a but not a itself, so the slash belongs to the segment.
            expression += "/"
    return expression


def _build_segment(segment: str, use_classes: bool) -> str:
    expression = ""
    position = 0
    while position < len(segment):
        match = _CHARACTER_CLASS.match(segment, position) if use_classes else None
        if match:
            body = match.group()[1:-1]
            is_negated = body.startswith("!")
            body = body[1:] if is_negated else body
            escaped = re.sub(r"([\\\]\[^&~|])", r"\\\1", body)
            expression += f"[^/{escaped}]" if is_negated else f"[{escaped}]"
            position = match.end()
            continue
        char = segment[position]
        expression += "[^/]*" if char == "*" else "[^/]" if char == "?" else re.escape(char)
        position += 1
    return expression


def expand_alternatives(pattern: str) -> list[str]:
    """Expand the pattern for each choice of its alternatives; braces without a comma are literal characters."""
    for start, char in enumerate(pattern):
        if char != "{":
            continue
        depth, cuts = 0, [start]
        for position in range(start, len(pattern)):
            if pattern[position] == "{":
                depth += 1
            elif pattern[position] == "}":
                depth -= 1
            if depth == 0 or (depth == 1 and pattern[position] == ","):
                cuts.append(position)
            if depth == 0:
                break
        if depth or len(cuts) < 3:
            continue
        tails = expand_alternatives(pattern[cuts[-1] + 1 :])
        expanded = [
            pattern[:start] + inner + tail
            for left, right in zip(cuts, cuts[1:])
            for inner in expand_alternatives(pattern[left + 1 : right])
            for tail in tails
        ]
        return expanded[:_MAX_ALTERNATIVES]
    return [pattern]
