"""Quantiles of counted values equal those of the values themselves."""

from collections import Counter
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.rules.percentiles import compute_quantiles


@given(st.lists(st.integers(0, 20).map(float), min_size=1), st.floats(0, 1))
def test_a_quantile_of_counts_equals_that_of_the_values(values: list[float], fraction: float) -> None:
    position = fraction * (len(values) - 1)
    lower = floor(position)
    ordered = sorted(values)
    above = ordered[min(lower + 1, len(values) - 1)]
    expected = ordered[lower] + (above - ordered[lower]) * (position - lower)
    quantiles = list(compute_quantiles(Counter(values), (fraction, 0.0, 1.0)))
    assert quantiles == [
        pytest.approx(expected),
        min(values),
        max(values),
    ]


def test_no_values_have_no_quantiles() -> None:
    assert compute_quantiles({}, (0.5, 0.9)) == (None, None)
