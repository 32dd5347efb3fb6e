"""The part of a text around the words that were searched for."""

import re
from dataclasses import dataclass

from bus.rules.text_format import excerpt

_LENGTH = 160
_BEFORE = 50


@dataclass(frozen=True, slots=True)
class ExcerptPart:
    """A piece of an excerpt, and whether it is one of the words."""

    text: str
    is_match: bool


def build_excerpt(text: str, query: str) -> list[ExcerptPart]:
    """Cut a text to one line around the first word of the query, with all of the words marked."""
    line = excerpt(text, len(text))
    words = sorted(set(re.findall(r"\w+", query)), key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", re.IGNORECASE) if words else None
    first = pattern.search(line) if pattern else None
    start = max(0, first.start() - _BEFORE) if first else 0
    if start:
        start = line.rfind(" ", 0, start + 1) + 1
    end = start + _LENGTH
    # A word that is longer than an excerpt is cut.
    space = line.rfind(" ", start + _BEFORE, end + 1)
    end = len(line) if end >= len(line) else space if space > 0 else end
    cut = line[start:end]
    parts, position = [], 0
    for match in pattern.finditer(cut) if pattern else ():
        parts += [ExcerptPart(cut[position : match.start()], False), ExcerptPart(match[0], True)]
        position = match.end()
    parts.append(ExcerptPart(cut[position:], False))
    if start:
        parts.insert(0, ExcerptPart("… ", False))
    if end < len(line):
        parts.append(ExcerptPart(" …", False))
    return [part for part in parts if part.text]
