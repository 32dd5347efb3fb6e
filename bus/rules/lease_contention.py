"""Which of many leases are in each other's way."""

import functools
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import TypeVar

from bus.rules import surfaces

Key = TypeVar("Key", bound=Hashable)
Holder = TypeVar("Holder", bound=Hashable)


# A verdict on two globs takes some 150 us and never changes.
_VERDICTS = 100_000
EFFORT = 200


def contended(leases: Sequence[tuple[Key, str, str, Holder]], *, effort: int = EFFORT) -> dict[Key, list[Key]]:
    """For each lease that contends with another's: the keys of those, in the order of `leases`.

    Args:
        leases: (key, normalised surface, mode, holder) of leases that are live at one moment. Those of one holder
            are never in each other's way.
        effort: so many verdicts on pairs that were never judged before are made, the rest is left for the next call.
            Only many globs under one directory come that far.
    """
    found: dict[Key, list[Key]] = {}
    spent = _overlap.cache_info().misses + effort
    for first, second in _near(leases):
        (key, surface, mode, holder), (other_key, other_surface, other_mode, other) = leases[first], leases[second]
        if holder == other or not surfaces.contends(mode, other_mode):
            continue
        if _overlap.cache_info().misses >= spent:
            break
        if not _overlap(*sorted((surface, other_surface))):
            continue
        found.setdefault(key, []).append(other_key)
        found.setdefault(other_key, []).append(key)
    order = {key: place for place, (key, *_) in enumerate(leases)}
    return {key: sorted(others, key=order.__getitem__) for key, others in found.items()}


@functools.lru_cache(_VERDICTS)
def _overlap(first: str, second: str) -> bool:
    return surfaces.overlap(first, second)


def _near(leases: Sequence[tuple[Key, str, str, Holder]]) -> Iterator[tuple[int, int]]:
    """Pairs whose prefixes are equal or one above the other, each once: all that overlap are among them."""
    by_prefix: dict[str, list[int]] = defaultdict(list)
    for place, (_, surface, _, _) in enumerate(leases):
        by_prefix[surfaces.prefix(surface)].append(place)
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
