"""Alternatives of a surface: `{a,b}` expanded into paths, each in its normalised spelling."""

import re
import unicodedata
from itertools import pairwise

from bus.errors import InvalidArgument

MAX_ALTERNATIVES = 64
MAX_BRACE_DEPTH = 8

_DRIVE_OR_HOME = re.compile(r"[A-Za-z]:(?:/|$)|~(?:/|$)")
_BRACE = re.compile(r"[{}]")


def normalise_path(text: str) -> str:
    """Remove empty and '.' segments from one path or pattern; '**' if none remain."""
    segments = [segment for segment in unicodedata.normalize("NFC", text).split("/") if segment not in ("", ".")]
    path = "/".join(segments) or "**"
    if text.startswith("/") or _DRIVE_OR_HOME.match(path):
        raise InvalidArgument("surface is absolute; send a path relative to the repository, such as 'src/api'.")
    if ".." in segments:
        raise InvalidArgument("surface contains '..'; send a path relative to the root of the repository.")
    return path


def expand_alternatives(surface: str) -> list[str]:
    """Expand a surface into normalised paths and patterns without alternatives."""
    if "{" not in surface and "}" not in surface:
        return [surface]
    depth = 0
    for brace in _BRACE.findall(surface):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            break
        if depth > MAX_BRACE_DEPTH:
            raise InvalidArgument(f"surface has too many nested braces; nest at most {MAX_BRACE_DEPTH}.")
    if depth:
        raise InvalidArgument("surface has an unbalanced brace; close every '{' with a '}'.")
    expanded = _expand_braces(surface)
    if "" in expanded:
        raise InvalidArgument("surface has an empty alternative; use '.' for the whole repository.")
    return list(dict.fromkeys(map(normalise_path, expanded)))


def find_alternatives_start(text: str) -> int | None:
    """Find the first brace that encloses alternatives; a brace without a comma is literal."""
    open_braces: list[int] = []
    start: int | None = None
    for position, char in enumerate(text) if "{" in text else ():
        if char == "{":
            open_braces.append(position)
        elif char == "}" and open_braces:
            open_braces.pop()
        elif char == "," and open_braces and (start is None or open_braces[-1] < start):
            start = open_braces[-1]
    return start


def _expand_braces(text: str) -> list[str]:
    """Expand a text with balanced braces into one text for each choice among its alternatives."""
    start = find_alternatives_start(text)
    if start is None:
        return [text]
    # The opening brace, the commas at its level, and the closing brace.
    separators, depth, position = [start], 1, start
    while depth:
        position += 1
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
        if not depth or (depth == 1 and text[position] == ","):
            separators.append(position)
    heads = [
        text[:start] + choice
        for left, right in pairwise(separators)
        for choice in _expand_braces(text[left + 1 : right])
    ]
    tails = _expand_braces(text[position + 1 :])
    # Checked before the texts are built, since their number is exponential in the length of the text.
    if len(heads) * len(tails) > MAX_ALTERNATIVES:
        raise InvalidArgument(f"surface stands for too many paths; use at most {MAX_ALTERNATIVES} alternatives.")
    return [head + tail for head in heads for tail in tails]
