"""Tokens of a surface: each alternative as characters, wildcards, classes and ends of segments."""

import re

from bus.rules.surface_alternatives import expand_alternatives

# A class is its sorted, disjoint, inclusive ranges of code points. Every other token is text: '/' ends a
# segment, '*', '?' and '**' are wildcards, which no surface can contain literally, and the rest is a character.
CodePointRanges = tuple[tuple[int, int], ...]
PatternToken = str | CodePointRanges
DOUBLE_STAR = "**"
STAR = "*"
ANY_CHARACTER = "?"
SEGMENT_END = "/"

# A ']' in first place is a member; a '[' without its ']' is a literal character, as in '[]' and '[!]'.
CLASS_PATTERN = r"\[!?+[^/][^\]/]*\]"
_TOKEN_WITH_CLASSES = re.compile(rf"{CLASS_PATTERN}|\*+|.")
_TOKEN_WITHOUT_CLASSES = re.compile(r"\*+|.")


def tokenise(surface: str) -> list[tuple[PatternToken, ...]]:
    """Tokenise each alternative of a surface, with classes and with brackets as literals; without duplicates."""
    alternatives: dict[tuple[PatternToken, ...], None] = {}
    for path in expand_alternatives(surface):
        alternatives[_tokenise_path(path, _TOKEN_WITHOUT_CLASSES)] = None
        if "[" in path:
            tokens = _tokenise_path(path, _TOKEN_WITH_CLASSES)
            if () not in tokens:  # a class of reversed ranges only, such as [z-a], matches nothing
                alternatives[tokens] = None
    return list(alternatives)


def _tokenise_path(path: str, pattern: re.Pattern[str]) -> tuple[PatternToken, ...]:
    """Tokenise one path or pattern.

    Each segment ends with '/'; '**' matches whole segments including their '/'. A literal path is followed by '**',
    since it covers everything under it.

    Args:
        pattern: splits a segment into tokens, with brackets as classes or as literals.
    """
    tokens: list[PatternToken] = []
    literal = True
    for segment in path.split("/"):
        if segment == DOUBLE_STAR:
            literal = False
            if tokens[-1:] != [DOUBLE_STAR]:
                tokens.append(DOUBLE_STAR)
            continue
        texts = pattern.findall(segment)
        literal = literal and "*" not in segment and "?" not in segment and len(texts) == len(segment)
        tokens += [text if len(text) == 1 else _parse_token(text) for text in texts]
        tokens.append(SEGMENT_END)
    if literal:
        tokens.append(DOUBLE_STAR)
    return tuple(tokens)


def _parse_token(text: str) -> PatternToken:
    return STAR if text[0] == "*" else _parse_class(text[1:-1])


def _parse_class(members: str) -> CodePointRanges:
    """The code points that a class matches. Never '/': like every wildcard, a class matches within its segment."""
    slash = (ord("/"), ord("/"))
    ranges: list[tuple[int, int]] = []
    negated = members[0] == "!"
    position = int(negated)
    while position < len(members):
        low = high = ord(members[position])
        if members[position + 1 : position + 2] == "-" and position + 2 < len(members):
            high = ord(members[position + 2])
            position += 2
        position += 1
        if low <= high:
            ranges.append((low, high))
    return _subtract_ranges([*ranges, slash], [(0, 0x10FFFF)]) if negated else _subtract_ranges([slash], ranges)


def _subtract_ranges(holes: list[tuple[int, int]], ranges: list[tuple[int, int]]) -> CodePointRanges:
    """Sort the ranges, make them disjoint, and remove the holes."""
    kept: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if kept:
            low = max(low, kept[-1][1] + 1)
        for start, end in sorted(holes):
            if low < start <= high:
                kept.append((low, start - 1))
            if start <= high and end >= low:
                low = end + 1
        if low <= high:
            kept.append((low, high))
    return tuple(kept)


def share_character(a: PatternToken, b: PatternToken) -> bool:
    """Whether two tokens match a common character; each is a class or a character."""
    ranges_a = ((ord(a), ord(a)),) if isinstance(a, str) else a
    ranges_b = ((ord(b), ord(b)),) if isinstance(b, str) else b
    return any(low <= end and start <= high for low, high in ranges_a for start, end in ranges_b)
