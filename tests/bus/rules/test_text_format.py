"""Counts, percentages, durations and relative times as people read them."""

from datetime import UTC, datetime, timedelta

import pytest

from bus.rules import text_format

_NOW = datetime(2026, 3, 15, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("quantity", "nouns", "expected"),
    [
        (0, ("post",), "0 posts"),
        (1, ("post",), "1 post"),
        (12_000, ("post",), "12,000 posts"),
        (1, ("reply", "replies"), "1 reply"),
        (2, ("reply", "replies"), "2 replies"),
    ],
)
def test_a_count_has_its_noun_in_the_right_number(quantity: int, nouns: tuple[str, ...], expected: str) -> None:
    assert text_format.pluralize(quantity, *nouns) == expected


@pytest.mark.parametrize(("value", "expected"), [(0, "0"), (12_000, "12,000"), (2.5, "2.5"), (0.333, "0.33")])
def test_a_number_has_at_most_two_decimals(value: float, expected: str) -> None:
    assert text_format.format_number(value) == expected


def test_a_percentage_has_no_space_before_its_sign() -> None:
    assert text_format.format_percent(0.7749) == "77.5%"
    assert text_format.format_percent(0.903, 0) == "90%"
    assert text_format.format_percent(None) == "–"


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        (0, 0, "0%"),
        (0, 5, "0%"),
        (5, 5, "100%"),
        (41, 100, "41%"),
        (1, 1000, "under 1%"),
        (999, 1000, "over 99%"),
    ],
)
def test_a_share_is_zero_or_all_only_where_it_is_exact(part: int, whole: int, expected: str) -> None:
    assert text_format.format_share(part, whole) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "–"),
        (0, "0 s"),
        (0.04, "40 ms"),
        (1.5, "1.5 s"),
        (59, "59 s"),
        (90, "1.5 min"),
        (7_200, "2 h"),
        (9_000, "2.5 h"),
        (200_000, "2.3 d"),
    ],
)
def test_a_duration_in_a_table_is_short(seconds: float | None, expected: str) -> None:
    assert text_format.format_seconds(seconds) == expected


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (-3, "0 s"),
        (12.4, "12 s"),
        (45, "1 minute"),
        (timedelta(minutes=30), "30 minutes"),
        (3_590, "1 hour"),
        (86_399, "1 day"),
        (timedelta(days=10), "10 days"),
    ],
)
def test_a_duration_in_a_sentence_is_in_its_largest_unit(duration: timedelta | float, expected: str) -> None:
    assert text_format.format_duration(duration) == expected


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (timedelta(seconds=-10), "just now"),
        (timedelta(seconds=10), "in a moment"),
        (timedelta(minutes=-5), "5 minutes ago"),
        (timedelta(days=2), "in 2 days"),
        (timedelta(days=-60), "14 Jan 2026"),
    ],
)
def test_a_time_is_relative_until_it_is_a_date(offset: timedelta, expected: str) -> None:
    assert text_format.format_relative_time(_NOW + offset, _NOW) == expected


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("## Ready\n\nThe cart is **done**, see `a_b.py`.", "Ready The cart is done, see a_b.py."),
        ("- [ ] one\n* two\n> three ~~four~~", "one two three four"),
        ("#12 is 2 * 3 - 1", "#12 is 2 * 3 - 1"),
        ("| table | rows |\n|---|---:|\n| orders | a|b |", "table rows orders a|b"),
        ("x" * 200, "x" * 100),
    ],
)
def test_an_excerpt_is_one_line_without_markdown(text: str, shown: str) -> None:
    assert text_format.excerpt(text) == shown
