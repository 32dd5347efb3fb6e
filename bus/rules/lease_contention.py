"""Which of many leases are in each other's way."""

import functools
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import TypeVar

from bus.rules import surfaces

Key = TypeVar("Key", bound=Hashable)
Holder = TypeVar("Holder", bound=Hashable)


# A verdict on two globs takes some 150 us and never changes.
_OVERLAP_CACHE_SIZE = 100_000
MAX_UNCACHED_COMPARISONS = 200


def find_contention(
    leases: Sequence[tuple[Key, str, str, Holder]], *, max_uncached_comparisons: int = MAX_UNCACHED_COMPARISONS
) -> dict[Key, list[Key]]:
    """For each lease that contends with another's: the keys of those, in the order of `leases`.

    Args:
        leases: (key, normalised surface, mode, holder) of leases that are live at one moment. Those of one holder
            are never in each other's way.
        effort: so many verdicts on pairs that were never judged before are made, the rest is left for the next call.
            Only many globs under one directory come that far.
    """
    found: dict[Key, list[Key]] = {}
    spent = _overlaps.cache_info().misses + max_uncached_comparisons
    for first, second in _iterate_candidate_pairs(leases):
        (key, surface, mode, holder), (other_key, other_surface, other_mode, other) = leases[first], leases[second]
        if holder == other or not surfaces.modes_contend(mode, other_mode):
            continue
        if _overlaps.cache_info().misses >= spent:
            break
        if not _overlaps(*sorted((surface, other_surface))):
            continue
        found.setdefault(key, []).append(other_key)
        found.setdefault(other_key, []).append(key)
    order = {key: place for place, (key, *_) in enumerate(leases)}
    return {key: sorted(others, key=order.__getitem__) for key, others in found.items()}


@functools.lru_cache(_OVERLAP_CACHE_SIZE)
def _overlaps(first: str, second: str) -> bool:
    return surfaces.overlaps(first, second)


def _iterate_candidate_pairs(leases: Sequence[tuple[Key, str, str, Holder]]) -> Iterator[tuple[int, int]]:
    """Pairs whose prefixes are equal or one above the other, each once: all that overlap are among them."""
    by_prefix: dict[str, list[int]] = defaultdict(list)
    for place, (_, surface, _, _) in enumerate(leases):
        by_prefix[surfaces.literal_prefix(surface)].append(place)
    for prefix, places in by_prefix.items():
        for position, place in enumerate(places):
            for other in places[position + 1 :]:
                yield place, other
        above = prefix
        while above:
            above = above.rpartition("/")[0]
            for place in places:
                for other in by_prefix.get(above, ()):
                    yield place, other
