"""Contention among many leases."""

import functools
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import TypeVar

from bus.rules import surfaces

Key = TypeVar("Key", bound=Hashable)
Holder = TypeVar("Holder", bound=Hashable)

# Comparing two globs takes some 150 us, and the result never changes.
_OVERLAP_CACHE_SIZE = 100_000
MAX_UNCACHED_COMPARISONS = 200


def find_contention(
    leases: Sequence[tuple[Key, str, str, Holder]], *, max_uncached_comparisons: int = MAX_UNCACHED_COMPARISONS
) -> dict[Key, list[Key]]:
    """Find the leases that contend with each lease.

    Args:
        leases: (key, normalised surface, mode, holder) of leases that are live at one moment. Leases of one holder
            never contend.
        max_uncached_comparisons: bound on comparisons whose result is not cached; the remaining ones are left to
            the next call. Only many globs under one directory reach it.
    Returns:
        For each contended lease the keys of the leases it contends with, in the order of `leases`.
    """
    contention: dict[Key, list[Key]] = {}
    max_misses = _overlaps.cache_info().misses + max_uncached_comparisons
    for first, second in _iterate_candidate_pairs(leases):
        key, surface, mode, holder = leases[first]
        other_key, other_surface, other_mode, other_holder = leases[second]
        if holder == other_holder or not surfaces.modes_contend(mode, other_mode):
            continue
        if _overlaps.cache_info().misses >= max_misses:
            break
        if not _overlaps(*sorted((surface, other_surface))):
            continue
        contention.setdefault(key, []).append(other_key)
        contention.setdefault(other_key, []).append(key)
    position_by_key = {key: position for position, (key, *_) in enumerate(leases)}
    return {key: sorted(others, key=position_by_key.__getitem__) for key, others in contention.items()}


@functools.lru_cache(_OVERLAP_CACHE_SIZE)
def _overlaps(first: str, second: str) -> bool:
    return surfaces.overlaps(first, second)


def _iterate_candidate_pairs(leases: Sequence[tuple[Key, str, str, Holder]]) -> Iterator[tuple[int, int]]:
    """Yield once each pair whose prefixes are equal or one above the other; every overlapping pair is among them."""
    indexes_by_prefix: dict[str, list[int]] = defaultdict(list)
    for index, (_, surface, _, _) in enumerate(leases):
        indexes_by_prefix[surfaces.literal_prefix(surface)].append(index)
    for prefix, indexes in indexes_by_prefix.items():
        for position, index in enumerate(indexes):
            for other in indexes[position + 1 :]:
                yield index, other
        ancestor = prefix
        while ancestor:
            ancestor = ancestor.rpartition("/")[0]
            for index in indexes:
                for other in indexes_by_prefix.get(ancestor, ()):
                    yield index, other
