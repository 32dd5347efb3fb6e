"""Surfaces: what part of a repository a lease is about, and which of them overlap.

A surface is a path relative to the repository, or a glob: `*` and `?` stay within a segment, `[a-z]` and
`[!a-z]` are classes, `**` as a whole segment stands for any number of segments, `{a,b}` are alternatives.
A path covers itself and all that is under it; a glob covers the paths that it matches. Alternatives are
read first, as a shell does, so each stands for itself: `{src,docs/*.md}` covers all of `src`.

Brackets are also common in real names (`app/[id]/page.tsx`, `[...slug]`, `[user-id]`), and there is no way to
quote them. So a surface with a class covers, besides what the class matches, what it says to the letter.
For an advisory lease a false alarm is cheap and a missed one is not. For the same reason braces without a
comma (`{{cookiecutter.slug}}`) are literal.

Overlap is decided exactly, as the emptiness of the intersection of two automata. The left surface is made a
minimal graph of tokens, so that 64 alternatives with a common part cost little more than one; the right
one is a row of bits, a bit for each position in each alternative; walking the graph once carries along the
set of positions that the right surface can be at. No step depends on what a pattern could match, so no
pattern is slow.
"""

import heapq
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import pairwise
from operator import or_

from bus.errors import InvalidArgument

MAX_LENGTH = 200
MAX_ALTERNATIVES = 64
MAX_BRACE_DEPTH = 8

# A class is its sorted, disjoint, inclusive ranges of code points. Every other token is text: '/' ends a
# segment, '*', '?' and '**' are wildcards, which no surface can hold literally, and the rest is a character.
CodePointRanges = tuple[tuple[int, int], ...]
PatternToken = str | CodePointRanges
_DOUBLE_STAR = "**"
_STAR = "*"
_ANY_CHARACTER = "?"
_SEGMENT_END = "/"

# Controls, bidi controls and separators of lines, surrogates.
_FORBIDDEN_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_DRIVE_OR_HOME = re.compile(r"[A-Za-z]:(?:/|$)|~(?:/|$)")
_BRACE = re.compile(r"[{}]")
# A ']' that comes first is a member; a '[' that nothing closes is just a character, as in '[]' and '[!]'.
_CLASS_PATTERN = r"\[!?+[^/][^\]/]*\]"
_WILDCARD_OR_CLASS = re.compile(rf"[*?]|{_CLASS_PATTERN}")
_TOKEN_WITH_CLASSES = re.compile(rf"{_CLASS_PATTERN}|\*+|.")
_TOKEN_WITHOUT_CLASSES = re.compile(r"\*+|.")


def normalise(surface: str) -> str:
    """The one spelling of a surface: `./src//api/` is `src/api`, `.` is `**`.

    Args:
        surface: what a client sent.
    Returns:
        1 to 200 characters in NFC, without empty and '.' segments; normalising it again changes nothing.
    Raises:
        InvalidArgument: empty, too long, absolute, leaves the repository, holds a backslash or a character
            that cannot be in a name, or its braces are unbalanced, too deep or stand for too many paths.
    """
    if len(surface) > 4 * MAX_LENGTH:
        raise _too_long_error()
    if found := _FORBIDDEN_CHARACTER.search(surface):
        raise InvalidArgument(f"surface holds a character that is refused (U+{ord(found[0]):04X}); remove it.")
    if "\\" in surface:
        raise InvalidArgument("surface holds a backslash; use '/' between segments.")
    if not surface:
        raise InvalidArgument("surface is empty; send a path such as 'src/api', or '.' for the whole repository.")
    # What is left is judged, not what was sent, so that it passes again: './~/a' is no better than '~/a'.
    surface = _normalise_path(surface)
    if surface != surface.strip():
        raise InvalidArgument("surface begins or ends with white space; remove it.")
    if len(surface) > MAX_LENGTH:
        raise _too_long_error()
    _expand_alternatives(surface)
    return surface


def is_glob(surface: str) -> bool:
    """Whether a normalised surface is more than one literal path: a wildcard, a class or alternatives."""
    return literal_prefix(surface) != surface


def literal_prefix(surface: str) -> str:
    """The literal directories that a normalised surface begins with; '' if it has none.

    All that a surface covers is its prefix or lies under it. So if two surfaces overlap, their prefixes are
    equal, or one is a directory above the other, or one is ''.

    Returns:
        The segments before the first that holds a wildcard, a class or alternatives; for a literal path,
        the path.
    """
    wild = _WILDCARD_OR_CLASS.search(surface)
    ends = [wild.start()] if wild else []
    choice = _find_alternatives_start(surface)
    if choice is not None:
        ends.append(choice)
    return surface[: min(ends)].rpartition("/")[0] if ends else surface


def overlaps(a: str, b: str) -> bool:
    """Whether some path is covered by both of two normalised surfaces; symmetric, and exact."""
    above, below = literal_prefix(a), literal_prefix(b)
    if not (_is_same_or_under(above, below) or _is_same_or_under(below, above)):
        return False
    if above == a and below == b:
        return True
    return _intersects(_build_token_graph(a), _build_position_masks(b))


def modes_contend(mode_a: str, mode_b: str) -> bool:
    """Whether leases of these modes on overlapping surfaces are in each other's way: unless both share."""
    return not (mode_a == "shared" and mode_b == "shared")


def _too_long_error() -> InvalidArgument:
    return InvalidArgument(f"surface has too many characters; send at most {MAX_LENGTH}.")


def _is_same_or_under(directory: str, path: str) -> bool:
    return not directory or path == directory or path.startswith(directory + "/")


def _normalise_path(text: str) -> str:
    """One path or pattern without what says nothing; '' can't come out, and '.' comes out as '**'."""
    segments = [segment for segment in unicodedata.normalize("NFC", text).split("/") if segment not in ("", ".")]
    path = "/".join(segments) or "**"
    if text.startswith("/") or _DRIVE_OR_HOME.match(path):
        raise InvalidArgument("surface is absolute; send a path relative to the repository, such as 'src/api'.")
    if ".." in segments:
        raise InvalidArgument("surface holds '..'; send a path relative to the root of the repository.")
    return path


def _expand_alternatives(surface: str) -> list[str]:
    """The paths and patterns without alternatives that a surface stands for, each in its one spelling."""
    if "{" not in surface and "}" not in surface:
        return [surface]
    depth = 0
    for brace in _BRACE.findall(surface):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            break
        if depth > MAX_BRACE_DEPTH:
            raise InvalidArgument(f"surface has braces in braces; nest at most {MAX_BRACE_DEPTH}.")
    if depth:
        raise InvalidArgument("surface has a brace without its partner; close every '{' with a '}'.")
    expanded = _expand_braces(surface)
    if "" in expanded:
        raise InvalidArgument("surface has an empty alternative; use '.' for the whole repository.")
    return list(dict.fromkeys(map(_normalise_path, expanded)))


def _find_alternatives_start(text: str) -> int | None:
    """Where the first brace stands that holds alternatives; one without a comma is literal."""
    opened: list[int] = []
    found: int | None = None
    for at, char in enumerate(text) if "{" in text else ():
        if char == "{":
            opened.append(at)
        elif char == "}" and opened:
            opened.pop()
        elif char == "," and opened and (found is None or opened[-1] < found):
            found = opened[-1]
    return found


def _expand_braces(text: str) -> list[str]:
    """The text once for each choice among its alternatives; its braces are balanced."""
    start = _find_alternatives_start(text)
    if start is None:
        return [text]
    cuts, depth, at = [start], 1, start
    while depth:
        at += 1
        if text[at] == "{":
            depth += 1
        elif text[at] == "}":
            depth -= 1
        if not depth or (depth == 1 and text[at] == ","):
            cuts.append(at)
    heads = [text[:start] + inner for left, right in pairwise(cuts) for inner in _expand_braces(text[left + 1 : right])]
    tails = _expand_braces(text[at + 1 :])
    # Counted before they are made, since their number is exponential in the length of the text.
    if len(heads) * len(tails) > MAX_ALTERNATIVES:
        raise InvalidArgument(f"surface stands for too many paths; use at most {MAX_ALTERNATIVES} alternatives.")
    return [head + tail for head in heads for tail in tails]


def _tokenise(surface: str) -> list[tuple[PatternToken, ...]]:
    """All that a surface stands for, as tokens, without repetitions."""
    found: dict[tuple[PatternToken, ...], None] = {}
    for path in _expand_alternatives(surface):
        found[_tokenise_path(path, _TOKEN_WITHOUT_CLASSES)] = None
        if "[" in path:
            tokens = _tokenise_path(path, _TOKEN_WITH_CLASSES)
            if () not in tokens:  # a class of reversed ranges only, such as [z-a], matches nothing
                found[tokens] = None
    return list(found)


def _tokenise_path(path: str, pattern: re.Pattern[str]) -> tuple[PatternToken, ...]:
    """One path or pattern as tokens.

    Each segment ends with '/'; '**' takes whole segments with theirs. A literal path gets a '**' behind it,
    since it covers what is under it.

    Args:
        pattern: cuts a segment into tokens, with brackets as classes or literal.
    """
    tokens: list[PatternToken] = []
    literal = True
    for segment in path.split("/"):
        if segment == _DOUBLE_STAR:
            literal = False
            if tokens[-1:] != [_DOUBLE_STAR]:
                tokens.append(_DOUBLE_STAR)
            continue
        texts = pattern.findall(segment)
        literal = literal and "*" not in segment and "?" not in segment and len(texts) == len(segment)
        tokens += [text if len(text) == 1 else _parse_token(text) for text in texts]
        tokens.append(_SEGMENT_END)
    if literal:
        tokens.append(_DOUBLE_STAR)
    return tuple(tokens)


def _parse_token(text: str) -> PatternToken:
    return _STAR if text[0] == "*" else _parse_class(text[1:-1])


def _parse_class(members: str) -> CodePointRanges:
    """What a class matches. Never '/': a class stays within its segment, like every wildcard."""
    slash = (ord("/"), ord("/"))
    listed: list[tuple[int, int]] = []
    negated = members[0] == "!"
    at = int(negated)
    while at < len(members):
        low = high = ord(members[at])
        if members[at + 1 : at + 2] == "-" and at + 2 < len(members):
            high = ord(members[at + 2])
            at += 2
        at += 1
        if low <= high:
            listed.append((low, high))
    return _subtract_ranges([*listed, slash], [(0, 0x10FFFF)]) if negated else _subtract_ranges([slash], listed)


def _subtract_ranges(holes: list[tuple[int, int]], ranges: list[tuple[int, int]]) -> CodePointRanges:
    """The ranges sorted and disjoint, with the holes cut out."""
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


def _share_character(a: PatternToken, b: PatternToken) -> bool:
    """Whether some character is matched by both; each is a class or a character."""
    one = ((ord(a), ord(a)),) if isinstance(a, str) else a
    two = ((ord(b), ord(b)),) if isinstance(b, str) else b
    return any(low <= end and start <= high for low, high in one for start, end in two)


@dataclass(frozen=True, slots=True)
class _TokenGraph:
    """A surface as the left side of _meet().

    Attributes:
        edges: (from, token, to) of an acyclic graph whose paths from node 0 to a node in `finals` spell the
            alternatives; each edge stands after all that lead to its start.
        finals: where an alternative ends.
        nodes: how many nodes there are.
    """

    edges: tuple[tuple[int, PatternToken, int], ...]
    finals: tuple[int, ...]
    node_count: int


@lru_cache(maxsize=512)
def _build_token_graph(surface: str) -> _TokenGraph:
    """The graph of a surface: minimal, more or less."""
    # Every distinct rest of an alternative gets a number: that of its first token and of the rest behind it.
    # The empty rest is 0, and a rest has a smaller number than those that it is the rest of.
    rests: dict[tuple[PatternToken, int], int] = {}
    heads: set[int] = set()
    for tokens in _tokenise(surface):
        rest = 0
        for token in reversed(tokens):
            rest = rests.setdefault((token, rest), len(rests) + 1)
        heads.add(rest)
    parts = list(rests)

    # A node is a set of rests that are reached by the same tokens. An edge leads to smaller numbers only, so
    # by the greatest number in each node, falling, is an order in which no edge leads back.
    start = frozenset(heads)
    numbers = {start: 0}
    todo = [(-max(start), 0, start)]
    edges: list[tuple[int, PatternToken, int]] = []
    while todo:
        _, number, node = heapq.heappop(todo)
        steps: defaultdict[PatternToken, set[int]] = defaultdict(set)
        for rest in node:
            if rest:
                token, behind = parts[rest - 1]
                steps[token].add(behind)
        for token, reached in steps.items():
            target = frozenset(reached)
            if target not in numbers:
                numbers[target] = len(numbers)
                heapq.heappush(todo, (-max(target), numbers[target], target))
            edges.append((number, token, numbers[target]))
    finals = tuple(number for node, number in numbers.items() if 0 in node)
    return _TokenGraph(tuple(edges), finals, len(numbers))


@dataclass(frozen=True, slots=True)
class _PositionMasks:
    """A surface as the right side of _meet(): sets of positions, as bits.

    A position stands before its token. A '**' has two: one between segments, and next to it one inside a
    segment that it is taking. Behind the last token of each alternative stands its end, and then a guard,
    which nothing ever reaches.

    Attributes:
        starts, ends, guards: one of each per alternative.
        slashes, stars, trees, insides: the positions of '/', of '*' and, both of them, of '**'.
        bounds: where a segment begins or could begin: starts of segments, trees and ends.
        singles: for each token that takes one character, its positions.
        classes: those of the singles that are classes.
        chars: the positions of all singles and stars.
    """

    starts: int
    ends: int
    guards: int
    slashes: int
    stars: int
    double_stars: int
    double_star_insides: int
    segment_bounds: int
    characters: int
    singles: dict[PatternToken, int]
    classes: tuple[PatternToken, ...]


# The worst surface takes some 250 KB here, a usual one a few: hence fewer than of graphs.
@lru_cache(maxsize=256)
def _build_position_masks(surface: str) -> _PositionMasks:
    starts: list[int] = []
    ends: list[int] = []
    guards: list[int] = []
    bounds: list[int] = []
    positions: defaultdict[PatternToken, list[int]] = defaultdict(list)
    at = 0
    for tokens in _tokenise(surface):
        starts.append(at)
        bounds.append(at)
        for token in tokens:
            positions[token].append(at)
            at += 1
            if token == _DOUBLE_STAR:
                at += 1
                bounds.append(at)
            elif token == _SEGMENT_END:
                bounds.append(at)
        ends.append(at)
        guards.append(at + 1)
        at += 2
    trees = _to_bitmask(positions.pop(_DOUBLE_STAR, []))
    stars = _to_bitmask(positions.pop(_STAR, []))
    slashes = _to_bitmask(positions.pop(_SEGMENT_END, []))
    singles = {token: _to_bitmask(held) for token, held in positions.items()}
    return _PositionMasks(
        starts=_to_bitmask(starts),
        ends=_to_bitmask(ends),
        guards=_to_bitmask(guards),
        slashes=slashes,
        stars=stars,
        double_stars=trees,
        double_star_insides=trees << 1,
        segment_bounds=_to_bitmask(bounds),
        characters=reduce(or_, singles.values(), stars),
        singles=singles,
        classes=tuple(token for token in singles if isinstance(token, tuple)),
    )


def _to_bitmask(positions: list[int]) -> int:
    # Through bytes: or-ing bits into an int copies it each time, which is quadratic.
    row = bytearray(positions[-1] // 8 + 1 if positions else 0)
    for at in positions:
        row[at >> 3] |= 1 << (at & 7)
    return int.from_bytes(row, "little")


def _intersects(graph: _TokenGraph, masks: _PositionMasks) -> bool:
    """Whether some path is spelt by both: the product of the two automata, a node of the graph at a time.

    A segment that both could take empty they could also take as any character, so wildcards need not be
    kept from matching the empty segment; and every segment can be matched, since tokens that take no
    character were left out.
    """
    reached = [0] * graph.node_count
    reached[0] = masks.starts
    takers: dict[PatternToken, int] = {}
    for source, token, target in graph.edges:
        at = reached[source]
        if not at:
            continue
        if token == _DOUBLE_STAR:
            # Any number of whole segments: on to every bound behind the first, within each alternative.
            # Below its guard, guard minus bits is minus the bits, which keeps the lowest and sets all above.
            at &= masks.segment_bounds
            at = (at | (masks.guards - at)) & masks.segment_bounds
        else:
            # A '**' and then a '*' of the row may take nothing. Neither can stand next to its like.
            at |= (at & masks.double_stars) << 2
            if token == _STAR:
                # On to every position up to the end of the segment, by the same subtraction: its slash is
                # the guard, and one that was borrowed from was reached.
                chars = at & masks.characters
                left = masks.slashes - chars
                trees = at & masks.double_stars
                at = at | (left & masks.characters) | (masks.slashes & ~left) | (trees << 1)
            else:
                at |= (at & masks.stars) << 1
                if token == _SEGMENT_END:
                    at = ((at & masks.slashes) << 1) | ((at & masks.double_star_insides) >> 1)
                else:
                    takes = takers.get(token)
                    if takes is None:
                        takes = takers[token] = _find_matching_positions(token, masks)
                    at = (at & (masks.stars | masks.double_star_insides)) | ((at & (takes | masks.double_stars)) << 1)
        reached[target] |= at
    for final in graph.finals:
        at = reached[final]
        if (at | (at & masks.double_stars) << 2) & masks.ends:
            return True
    return False


def _find_matching_positions(token: PatternToken, masks: _PositionMasks) -> int:
    """The positions of the row whose token can take a character that this one takes."""
    if token == _ANY_CHARACTER:
        return masks.characters
    held = masks.singles.get(_ANY_CHARACTER, 0)
    if isinstance(token, str):
        held |= masks.singles.get(token, 0)
        others: Iterable[PatternToken] = masks.classes
    else:
        others = masks.singles
    for other in others:
        if other != _ANY_CHARACTER and _share_character(token, other):
            held |= masks.singles[other]
    return held
