"""Contention among many leases equals the result of comparing every pair."""

from hypothesis import given
from hypothesis import strategies as st

from bus.rules import surfaces
from bus.rules.lease_contention import find_contention

_SURFACES = st.sampled_from(
    ["**", "src", "src/api", "src/api/a.py", "src/*.py", "src/**/*.py", "docs", "docs/{a,b}.md", "docs/a.md", "src0"]
)
_LEASES = st.lists(st.tuples(_SURFACES, st.sampled_from(["exclusive", "shared"]), st.integers(1, 3)), max_size=12)


@given(_LEASES)
def test_exactly_the_overlapping_pairs_are_returned(drawn: list[tuple[str, str, int]]) -> None:
    leases = [(key, *lease) for key, lease in enumerate(drawn)]
    expected = {
        key: [
            other
            for other, other_surface, other_mode, other_holder in leases
            if other_holder != holder
            and surfaces.modes_contend(mode, other_mode)
            and surfaces.overlaps(surface, other_surface)
        ]
        for key, surface, mode, holder in leases
    }
    assert find_contention(leases, max_uncached_comparisons=1000) == {
        key: others for key, others in expected.items() if others
    }


def test_comparisons_of_many_globs_are_spread_over_several_calls() -> None:
    leases = [(number, f"one/**/part_{number}*.py", "exclusive", number % 7) for number in range(40)]
    first = find_contention(leases, max_uncached_comparisons=30)
    assert len(first) < 40
    again = first
    for _ in range(40):
        again = find_contention(leases, max_uncached_comparisons=30)
    assert again == find_contention(leases, max_uncached_comparisons=10_000)
    assert set(first) <= set(again)
