"""Which paths a pattern covers, in the words of the bus: the same answer as the service gives for a lease."""

from __future__ import annotations

import re
from functools import lru_cache

_CHARACTER_CLASS = re.compile(r"\[!?[^/][^\]/]*\]")
_MAX_ALTERNATIVES = 256


def covers(pattern: str, path: str) -> bool:
    """Whether `path` (relative, with '/') is what `pattern` names, matches, or holds.

    Args:
        pattern: a path, a directory or a glob: `*` and `?` stay within a segment, `**` takes whole segments,
            `[a-z]` is a class, `{a,b}` are alternatives. A literal path covers all that is under it.
    """
    return any(expression.match(path) is not None for expression in _compile(pattern))


@lru_cache(maxsize=1024)
def _compile(pattern: str) -> tuple[re.Pattern[str], ...]:
    expressions = []
    for alternative in _expand_alternatives(pattern):
        segments = [segment for segment in alternative.split("/") if segment not in ("", ".")] or ["**"]
        wild = any("*" in segment or "?" in segment for segment in segments)
        classes = any(_CHARACTER_CLASS.search(segment) for segment in segments)
        under = "" if wild else "(?:/.*)?"
        expressions.append(_build_expression(segments, False) + under)
        if classes:
            expressions.append(_build_expression(segments, True))
    return tuple(re.compile(expression + r"\Z", re.DOTALL) for expression in expressions)


def _build_expression(segments: list[str], classes: bool) -> str:
    """One alternative as a regular expression; brackets are classes or stand for themselves."""
    made = ""
    for at, segment in enumerate(segments):
        last = at == len(segments) - 1
        if segment == "**":
            made += "(?:[^/]+(?:/[^/]+)*)" if last and at == 0 else "[^/]+(?:/[^/]+)*" if last else "(?:[^/]+/)*"
            continue
        made += _build_segment(segment, classes)
        if not last:
            # What `a/**` covers is under a, and a itself is not: so the slash belongs to the segment.
            made += "/"
    return made


def _build_segment(segment: str, classes: bool) -> str:
    made = ""
    at = 0
    while at < len(segment):
        found = _CHARACTER_CLASS.match(segment, at) if classes else None
        if found:
            body = found.group()[1:-1]
            negated = body.startswith("!")
            body = body[1:] if negated else body
            escaped = re.sub(r"([\\\]\[^&~|])", r"\\\1", body)
            made += f"[^/{escaped}]" if negated else f"[{escaped}]"
            at = found.end()
            continue
        char = segment[at]
        made += "[^/]*" if char == "*" else "[^/]" if char == "?" else re.escape(char)
        at += 1
    return made


def _expand_alternatives(pattern: str) -> list[str]:
    """The pattern once for each choice among its alternatives; braces without a comma stand for themselves."""
    for start, char in enumerate(pattern):
        if char != "{":
            continue
        depth, cuts = 0, [start]
        for at in range(start, len(pattern)):
            if pattern[at] == "{":
                depth += 1
            elif pattern[at] == "}":
                depth -= 1
            if depth == 0 or (depth == 1 and pattern[at] == ","):
                cuts.append(at)
            if depth == 0:
                break
        if depth or len(cuts) < 3:
            continue
        tails = _expand_alternatives(pattern[cuts[-1] + 1 :])
        made = [
            pattern[:start] + inner + tail
            for left, right in zip(cuts, cuts[1:])
            for inner in _expand_alternatives(pattern[left + 1 : right])
            for tail in tails
        ]
        return made[:_MAX_ALTERNATIVES]
    return [pattern]
