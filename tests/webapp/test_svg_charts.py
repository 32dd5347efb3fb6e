import itertools
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.rules.text_format import format_seconds
from webapp import svg_charts
from webapp.svg_charts import Series


def _paths(svg: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(svg)
    return [one for one in root.iter() if one.tag.endswith("path") and "gridlines" not in one.attrib["class"]]


def _heights(path: ElementTree.Element) -> list[float]:
    return [-float(height) for height in re.findall(r"v(-[\d.]+)h", path.attrib["d"])]


def test_stacked_columns_have_heights_proportional_to_their_values() -> None:
    plot = svg_charts.column_chart(
        [Series("posts", [10, 0, 40]), Series("acks", [30, None, 0])], ["a", "b", "c"], aria_label="mix"
    )

    posts, acks = _paths(plot.svg)
    assert plot.tick_labels == ("40", "30", "20", "10", "0")
    assert _heights(posts) == [25, 100]
    assert _heights(acks) == [75]
    # The column of acks begins at the top of the column of posts.
    assert acks.attrib["d"].startswith("M1 75h8")
    assert plot.legend == ("posts", "acks")
    assert not plot.is_empty


def test_a_line_breaks_at_a_gap_and_a_single_value_is_a_dot() -> None:
    plot = svg_charts.line_chart([Series("median", [1, 2, None, 4])], ["a", "b", "c", "d"], aria_label="times")

    assert [(path.attrib["class"], path.attrib["d"]) for path in _paths(plot.svg)] == [
        ("line series-0", "M5 75L15 50"),
        ("line dot series-0", "M35 0h0"),
    ]
    assert plot.legend == ()


def test_text_in_a_chart_is_escaped() -> None:
    plot = svg_charts.column_chart([Series('<b>"', [1])], ["<i>"], aria_label='"><script>')

    root = ElementTree.fromstring(plot.svg)
    assert root.attrib["aria-label"] == '"><script>'
    assert [one.text for one in root.iter() if one.tag.endswith("title")] == ['<i>\n<b>": 1']


def test_charts_without_values_are_valid() -> None:
    for plot in (
        svg_charts.column_chart([], [], aria_label="nothing"),
        svg_charts.line_chart([Series("x", [None])], ["a"], aria_label="nothing"),
    ):
        assert plot.is_empty
        ElementTree.fromstring(plot.svg)
    assert svg_charts.bubble(0, 5) == ""
    assert "bar-marked" not in svg_charts.bar(0, 0)


@pytest.mark.parametrize(
    ("bins", "marks"), [(24, 6), (168, 6), (7, 7), (30, 6), (90, 6), (8, 4), (3, 3), (13, 1), (0, 0)]
)
def test_bin_labels_are_evenly_spaced(bins: int, marks: int) -> None:
    names = [str(at) for at in range(bins)]
    found = svg_charts.column_chart([Series("x", [1] * bins)], names, aria_label="x").bin_labels

    assert len(found) == marks
    if bins % max(marks, 1) == 0 and marks:
        assert found == tuple(names[:: bins // marks])


def test_an_axis_of_durations_has_steps_of_whole_units() -> None:
    plot = svg_charts.line_chart(
        [Series("p90", [100])], ["a"], aria_label="x", format_value=format_seconds, is_duration=True
    )
    assert plot.tick_labels == ("2 min", "1.5 min", "1 min", "30 s", "0 s")


@given(st.floats(1e-6, 1e12), st.booleans())
def test_an_axis_holds_its_maximum_in_few_even_steps(greatest: float, durations: bool) -> None:
    top, ticks = svg_charts.axis_scale(greatest, is_duration=durations)

    assert ticks[0] == 0
    assert ticks[-1] == pytest.approx(top)
    assert greatest <= top * (1 + 1e-6)
    assert 2 <= len(ticks) <= 6
    steps = [after - before for before, after in itertools.pairwise(ticks)]
    assert all(step == pytest.approx(steps[0], rel=1e-3, abs=1e-9) for step in steps)
    # The maximum lies within the highest step.
    assert greatest > top - steps[0] * (1 + 1e-6)


@given(st.integers(2, 10**9))
def test_an_axis_of_counts_has_whole_steps(greatest: int) -> None:
    assert all(tick == int(tick) for tick in svg_charts.axis_scale(greatest)[1])


def test_a_segmented_bar_is_divided_in_proportion() -> None:
    root = ElementTree.fromstring(svg_charts.segmented_bar([30, 0, 10], aria_label="mix"))

    parts = [
        (one.attrib["class"], one.attrib.get("x"), one.attrib["width"]) for one in root if one.get("x") is not None
    ]
    assert parts == [("series-0", "0", "75"), ("series-2", "75", "25")]


def test_shares_are_drawn_from_0_to_100_percent() -> None:
    plot = svg_charts.line_chart([Series("share", [20, 10])], ["a", "b"], aria_label="x", maximum=100)

    assert plot.tick_labels == ("100", "75", "50", "25", "0")
    assert _paths(plot.svg)[0].attrib["d"] == "M5 80L15 90"


def test_a_forecast_is_dashed_and_a_balance_is_stepped() -> None:
    plot = svg_charts.line_chart(
        [Series("balance", [10, 40], is_stepped=True), Series("forecast", [None, 40], is_forecast=True)],
        ["a", "b"],
        aria_label="x",
    )
    balance, _ = _paths(plot.svg)
    assert balance.attrib["d"] == "M5 75H15L15 0"
    dashed = svg_charts.line_chart([Series("forecast", [4, 2], is_forecast=True)], ["a", "b"], aria_label="x")
    assert [path.attrib["class"] for path in _paths(dashed.svg)] == ["line forecast series-0"]
