"""Surfaces: the part of a repository that a lease is about, and the test whether two of them overlap.

A surface is a path relative to the repository, or a glob: `*` and `?` match within a segment, `[a-z]` and
`[!a-z]` are classes, `**` as a whole segment matches any number of segments, `{a,b}` are alternatives.
A path covers itself and everything under it; a glob covers the paths that it matches. Alternatives are
expanded first, as a shell does, so each stands for itself: `{src,docs/*.md}` covers all of `src`.

Brackets are also common in real names (`app/[id]/page.tsx`, `[...slug]`, `[user-id]`), and there is no syntax to
quote them. A surface with a class therefore covers its literal text as well as the matches of the class.
For an advisory lease a false alarm is cheap and a missed overlap is not. For the same reason braces without a
comma (`{{cookiecutter.slug}}`) are literal.

Overlap is decided exactly, as the emptiness of the intersection of two automata. The left surface becomes a
minimal graph of tokens, so that 64 alternatives with a common part cost little more than one. The right
one becomes a bit mask with one bit for each position in each alternative. One walk of the graph carries along
the set of positions that the right surface can be at. No step depends on the texts that a pattern could match, so
no pattern is slow.
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
from bus.rules import surface_text

MAX_LENGTH = 200
MAX_ALTERNATIVES = 64
MAX_BRACE_DEPTH = 8

# A class is its sorted, disjoint, inclusive ranges of code points. Every other token is text: '/' ends a
# segment, '*', '?' and '**' are wildcards, which no surface can contain literally, and the rest is a character.
CodePointRanges = tuple[tuple[int, int], ...]
PatternToken = str | CodePointRanges
_DOUBLE_STAR = "**"
_STAR = "*"
_ANY_CHARACTER = "?"
_SEGMENT_END = "/"

# Controls, bidi controls, line separators, surrogates.
_FORBIDDEN_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_DRIVE_OR_HOME = re.compile(r"[A-Za-z]:(?:/|$)|~(?:/|$)")
_BRACE = re.compile(r"[{}]")
# A ']' in first place is a member; a '[' without its ']' is a literal character, as in '[]' and '[!]'.
_CLASS_PATTERN = r"\[!?+[^/][^\]/]*\]"
_WILDCARD_OR_CLASS = re.compile(rf"[*?]|{_CLASS_PATTERN}")
_CLASS = re.compile(_CLASS_PATTERN)
_RANGE = re.compile("(.)-(.)")
_TOKEN_WITH_CLASSES = re.compile(rf"{_CLASS_PATTERN}|\*+|.")
_TOKEN_WITHOUT_CLASSES = re.compile(r"\*+|.")


def normalise(surface: str) -> str:
    """Normalise a surface to its only spelling: `./src//api/` is `src/api`, `.` is `**`, `"a.py":10` is `a.py`.

    Args:
        surface: as a client sent it.
    Returns:
        1 to 200 characters in NFC, without empty and '.' segments. Idempotent.
    Raises:
        InvalidArgument: empty, too long, absolute, outside the repository, not one path or glob
            (bus/rules/surface_text.py), contains a character that cannot occur in a name, or has braces that are
            unbalanced, too deep or expand to too many paths.
    """
    if len(surface) > 4 * MAX_LENGTH:
        raise _too_long_error()
    if forbidden := _FORBIDDEN_CHARACTER.search(surface):
        advice = "send one path in each call" if forbidden[0] in "\t\n\r" else "remove it"
        raise InvalidArgument(f"surface contains a character that is refused (U+{ord(forbidden[0]):04X}); {advice}.")
    if not surface:
        raise InvalidArgument("surface is empty; send a path such as 'src/api', or '.' for the whole repository.")
    # The checks apply to the normalised text, so that it passes again: './~/a' is refused like '~/a'.
    if surface_text.is_plain(surface):
        # No blank, brace or quote: only its length is left to check.
        surface = _normalise_path(surface)
        if len(surface) > MAX_LENGTH:
            raise _too_long_error()
        return surface
    surface_text.check_raw(surface)
    surface = _clean_path(surface)
    if surface != surface.strip():
        raise InvalidArgument("surface begins or ends with white space; remove it.")
    if len(surface) > MAX_LENGTH:
        raise _too_long_error()
    for path in _expand_alternatives(surface):
        if path != path.strip():
            raise InvalidArgument("surface has white space beside a brace or a comma; remove it.")
        surface_text.check(path)
    return surface


def literal_prefix(surface: str) -> str:
    """Return the literal directories that a normalised surface begins with; '' if there are none.

    Everything that a surface covers is its prefix or lies under it. So if two surfaces overlap, their prefixes are
    equal, or one is a directory above the other, or one is ''.

    Returns:
        The segments before the first that contains a wildcard, a class or alternatives; for a literal path,
        the path.
    """
    wildcard = _WILDCARD_OR_CLASS.search(surface)
    ends = [wildcard.start()] if wildcard else []
    alternatives_start = _find_alternatives_start(surface)
    if alternatives_start is not None:
        ends.append(alternatives_start)
    return surface[: min(ends)].rpartition("/")[0] if ends else surface


def overlaps(a: str, b: str) -> bool:
    """Whether two normalised surfaces cover a common path. Exact and symmetric."""
    prefix_a, prefix_b = literal_prefix(a), literal_prefix(b)
    if not (_is_same_or_under(prefix_a, prefix_b) or _is_same_or_under(prefix_b, prefix_a)):
        return False
    if prefix_a == a and prefix_b == b:
        return True
    return _intersects(_build_token_graph(a), _build_position_masks(b))


def fold_case(surface: str) -> str:
    """Return the only spelling of a normalised surface in a project whose paths ignore case: lower case. Idempotent.

    No character becomes several, so the length and the meaning of wildcards stay. A class with a range from one case
    into the other, such as [A-z], becomes '?', since its lower case would match less.
    """
    if "[" in surface:
        surface = _CLASS.sub(lambda match: "?" if _has_mixed_range(match[0]) else match[0], surface)
    lower = surface.lower()
    if len(lower) == len(surface):
        return lower
    return "".join(char.lower() if len(char.lower()) == 1 else char for char in surface)


def _has_mixed_range(character_class: str) -> bool:
    members = character_class[1:-1].removeprefix("!")
    ranges = _RANGE.findall(members)
    return any(low.islower() != high.islower() or low.isupper() != high.isupper() for low, high in ranges)


def modes_contend(mode_a: str, mode_b: str) -> bool:
    """Whether leases of these modes contend on overlapping surfaces: they do unless both are shared."""
    return not (mode_a == "shared" and mode_b == "shared")


def _too_long_error() -> InvalidArgument:
    return InvalidArgument(f"surface has too many characters; send at most {MAX_LENGTH}.")


def _is_same_or_under(directory: str, path: str) -> bool:
    return not directory or path == directory or path.startswith(directory + "/")


def _normalise_path(text: str) -> str:
    """Remove empty and '.' segments from one path or pattern; '**' if none remain."""
    segments = [segment for segment in unicodedata.normalize("NFC", text).split("/") if segment not in ("", ".")]
    path = "/".join(segments) or "**"
    if text.startswith("/") or _DRIVE_OR_HOME.match(path):
        raise InvalidArgument("surface is absolute; send a path relative to the repository, such as 'src/api'.")
    if ".." in segments:
        raise InvalidArgument("surface contains '..'; send a path relative to the root of the repository.")
    return path


def _clean_path(text: str) -> str:
    """Clean and normalise a text until neither changes it: './"a"' is 'a'."""
    while True:
        path = _normalise_path(surface_text.clean(text))
        if path == text:
            return path
        text = path


def _expand_alternatives(surface: str) -> list[str]:
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
    return list(dict.fromkeys(map(_normalise_path, expanded)))


def _find_alternatives_start(text: str) -> int | None:
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
    start = _find_alternatives_start(text)
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


def _tokenise(surface: str) -> list[tuple[PatternToken, ...]]:
    """Tokenise each alternative of a surface, with classes and with brackets as literals; without duplicates."""
    alternatives: dict[tuple[PatternToken, ...], None] = {}
    for path in _expand_alternatives(surface):
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


def _share_character(a: PatternToken, b: PatternToken) -> bool:
    """Whether two tokens match a common character; each is a class or a character."""
    ranges_a = ((ord(a), ord(a)),) if isinstance(a, str) else a
    ranges_b = ((ord(b), ord(b)),) if isinstance(b, str) else b
    return any(low <= end and start <= high for low, high in ranges_a for start, end in ranges_b)


@dataclass(frozen=True, slots=True)
class _TokenGraph:
    """A surface as the left operand of _intersects().

    Attributes:
        edges: (source, token, target) of an acyclic graph. The paths from node 0 to a node in `finals` spell the
            alternatives. Each edge follows all edges that lead to its source.
        finals: the nodes at which an alternative ends.
        node_count: the number of nodes.
    """

    edges: tuple[tuple[int, PatternToken, int], ...]
    finals: tuple[int, ...]
    node_count: int


@lru_cache(maxsize=512)
def _build_token_graph(surface: str) -> _TokenGraph:
    """Build the nearly minimal graph of a surface."""
    # Each distinct suffix of an alternative gets a number, keyed by its first token and the number of the rest.
    # The empty suffix is 0, and a suffix has a smaller number than every suffix that contains it.
    suffix_numbers: dict[tuple[PatternToken, int], int] = {}
    initial_suffixes: set[int] = set()
    for tokens in _tokenise(surface):
        suffix = 0
        for token in reversed(tokens):
            suffix = suffix_numbers.setdefault((token, suffix), len(suffix_numbers) + 1)
        initial_suffixes.add(suffix)
    suffixes = list(suffix_numbers)

    # A node is the set of suffixes that are reached by the same tokens. Edges lead to smaller numbers only, so
    # descending order of each node's greatest number is a topological order.
    start = frozenset(initial_suffixes)
    node_numbers = {start: 0}
    pending = [(-max(start), 0, start)]
    edges: list[tuple[int, PatternToken, int]] = []
    while pending:
        _, number, node = heapq.heappop(pending)
        suffixes_by_token: defaultdict[PatternToken, set[int]] = defaultdict(set)
        for suffix in node:
            if suffix:
                token, rest = suffixes[suffix - 1]
                suffixes_by_token[token].add(rest)
        for token, reached in suffixes_by_token.items():
            target = frozenset(reached)
            if target not in node_numbers:
                node_numbers[target] = len(node_numbers)
                heapq.heappush(pending, (-max(target), node_numbers[target], target))
            edges.append((number, token, node_numbers[target]))
    finals = tuple(number for node, number in node_numbers.items() if 0 in node)
    return _TokenGraph(tuple(edges), finals, len(node_numbers))


@dataclass(frozen=True, slots=True)
class _PositionMasks:
    """A surface as the right operand of _intersects(): sets of positions, as bit masks.

    A position stands before its token. A '**' has two: one between segments, and next to it one inside a
    segment that it is matching. The last token of each alternative is followed by the end position, and then by
    a guard, which is never reached.

    Attributes:
        starts, ends, guards: one of each per alternative.
        slashes, stars: the positions of '/' and of '*'.
        double_stars, double_star_insides: the two positions of each '**'.
        segment_bounds: where a segment begins or could begin: starts of segments, double stars and ends.
        characters: the positions of all `singles` and of `stars`.
        singles: for each token that matches one character, its positions.
        classes: those of the `singles` that are classes.
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


# The largest surface takes some 250 KB here, a usual one a few KB: hence a smaller cache than for graphs.
@lru_cache(maxsize=256)
def _build_position_masks(surface: str) -> _PositionMasks:
    starts: list[int] = []
    ends: list[int] = []
    guards: list[int] = []
    segment_bounds: list[int] = []
    positions_by_token: defaultdict[PatternToken, list[int]] = defaultdict(list)
    position = 0
    for tokens in _tokenise(surface):
        starts.append(position)
        segment_bounds.append(position)
        for token in tokens:
            positions_by_token[token].append(position)
            position += 1
            if token == _DOUBLE_STAR:
                position += 1
                segment_bounds.append(position)
            elif token == _SEGMENT_END:
                segment_bounds.append(position)
        ends.append(position)
        guards.append(position + 1)
        position += 2
    double_stars = _to_bitmask(positions_by_token.pop(_DOUBLE_STAR, []))
    stars = _to_bitmask(positions_by_token.pop(_STAR, []))
    slashes = _to_bitmask(positions_by_token.pop(_SEGMENT_END, []))
    singles = {token: _to_bitmask(positions) for token, positions in positions_by_token.items()}
    return _PositionMasks(
        starts=_to_bitmask(starts),
        ends=_to_bitmask(ends),
        guards=_to_bitmask(guards),
        slashes=slashes,
        stars=stars,
        double_stars=double_stars,
        double_star_insides=double_stars << 1,
        segment_bounds=_to_bitmask(segment_bounds),
        characters=reduce(or_, singles.values(), stars),
        singles=singles,
        classes=tuple(token for token in singles if isinstance(token, tuple)),
    )


def _to_bitmask(positions: list[int]) -> int:
    # Through bytes: or-ing bits into an int copies it each time, which is quadratic.
    mask = bytearray(positions[-1] // 8 + 1 if positions else 0)
    for position in positions:
        mask[position >> 3] |= 1 << (position & 7)
    return int.from_bytes(mask, "little")


def _intersects(graph: _TokenGraph, masks: _PositionMasks) -> bool:
    """Whether both operands match a common path: the product of the two automata, one edge of the graph at a time.

    A segment that both could match as empty they could also match as any character, so wildcards need not be
    kept from matching the empty segment. Every segment can be matched, since classes that match no character
    were left out.
    """
    reached = [0] * graph.node_count
    reached[0] = masks.starts
    matching_positions: dict[PatternToken, int] = {}
    for source, token, target in graph.edges:
        positions = reached[source]
        if not positions:
            continue
        if token == _DOUBLE_STAR:
            # Any number of whole segments: advance to every later bound of the same alternative. Guard minus the
            # bits below it keeps the lowest of them and sets all above.
            positions &= masks.segment_bounds
            positions = (positions | (masks.guards - positions)) & masks.segment_bounds
        else:
            # A '**' and then a '*' of the right operand may match nothing. Neither stands next to its like.
            positions |= (positions & masks.double_stars) << 2
            if token == _STAR:
                # Advance to every position up to the end of the segment, by the same subtraction with the slash
                # as the guard; a slash that was borrowed from was reached.
                characters = positions & masks.characters
                remaining = masks.slashes - characters
                double_stars = positions & masks.double_stars
                positions = (
                    positions | (remaining & masks.characters) | (masks.slashes & ~remaining) | (double_stars << 1)
                )
            else:
                positions |= (positions & masks.stars) << 1
                if token == _SEGMENT_END:
                    positions = ((positions & masks.slashes) << 1) | ((positions & masks.double_star_insides) >> 1)
                else:
                    matching = matching_positions.get(token)
                    if matching is None:
                        matching = matching_positions[token] = _find_matching_positions(token, masks)
                    positions = (positions & (masks.stars | masks.double_star_insides)) | (
                        (positions & (matching | masks.double_stars)) << 1
                    )
        reached[target] |= positions
    for final in graph.finals:
        positions = reached[final]
        if (positions | (positions & masks.double_stars) << 2) & masks.ends:
            return True
    return False


def _find_matching_positions(token: PatternToken, masks: _PositionMasks) -> int:
    """The positions of the right operand whose token shares a character with `token`."""
    if token == _ANY_CHARACTER:
        return masks.characters
    positions = masks.singles.get(_ANY_CHARACTER, 0)
    if isinstance(token, str):
        positions |= masks.singles.get(token, 0)
        candidates: Iterable[PatternToken] = masks.classes
    else:
        candidates = masks.singles
    for candidate in candidates:
        if candidate != _ANY_CHARACTER and _share_character(token, candidate):
            positions |= masks.singles[candidate]
    return positions
