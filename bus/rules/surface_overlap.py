"""Whether two surfaces cover a common path: the emptiness of the intersection of two automata, decided exactly.

The left surface becomes a minimal graph of tokens, so that 64 alternatives with a common part cost little more than
one. The right one becomes a bit mask with one bit for each position in each alternative. One walk of the graph
carries along the set of positions that the right surface can be at. No step depends on the texts that a pattern
could match, so no pattern is slow.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import or_

from bus.rules.surface_tokens import (
    ANY_CHARACTER,
    DOUBLE_STAR,
    SEGMENT_END,
    STAR,
    PatternToken,
    share_character,
    tokenise,
)


def patterns_intersect(a: str, b: str) -> bool:
    """Whether two normalised surfaces match a common path. Symmetric; a literal path covers what is under it."""
    return _intersects(_build_token_graph(a), _build_position_masks(b))


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
    for tokens in tokenise(surface):
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
    for tokens in tokenise(surface):
        starts.append(position)
        segment_bounds.append(position)
        for token in tokens:
            positions_by_token[token].append(position)
            position += 1
            if token == DOUBLE_STAR:
                position += 1
                segment_bounds.append(position)
            elif token == SEGMENT_END:
                segment_bounds.append(position)
        ends.append(position)
        guards.append(position + 1)
        position += 2
    double_stars = _to_bitmask(positions_by_token.pop(DOUBLE_STAR, []))
    stars = _to_bitmask(positions_by_token.pop(STAR, []))
    slashes = _to_bitmask(positions_by_token.pop(SEGMENT_END, []))
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
        if token == DOUBLE_STAR:
            # Any number of whole segments: advance to every later bound of the same alternative. Guard minus the
            # bits below it keeps the lowest of them and sets all above.
            positions &= masks.segment_bounds
            positions = (positions | (masks.guards - positions)) & masks.segment_bounds
        else:
            # A '**' and then a '*' of the right operand may match nothing. Neither stands next to its like.
            positions |= (positions & masks.double_stars) << 2
            if token == STAR:
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
                if token == SEGMENT_END:
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
    if token == ANY_CHARACTER:
        return masks.characters
    positions = masks.singles.get(ANY_CHARACTER, 0)
    if isinstance(token, str):
        positions |= masks.singles.get(token, 0)
        candidates: Iterable[PatternToken] = masks.classes
    else:
        candidates = masks.singles
    for candidate in candidates:
        if candidate != ANY_CHARACTER and share_character(token, candidate):
            positions |= masks.singles[candidate]
    return positions
