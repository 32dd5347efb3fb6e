import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.rules.sequence_format import format_number


@pytest.mark.parametrize(
    ("prefix", "pad", "number", "formatted"),
    [
        ("ADR-", 4, 7, "ADR-0007"),
        ("", 0, 7, "7"),
        ("", 1, 0, "0"),
        ("", 0, 0, "0"),
        ("M", 3, 1000, "M1000"),
        ("", 12, 2**53 - 1, "9007199254740991"),
        ("5", 2, 1, "501"),
    ],
)
def test_a_number_is_formatted_with_prefix_and_padding(prefix: str, pad: int, number: int, formatted: str) -> None:
    assert format_number(prefix, pad, number) == formatted


@given(st.text(max_size=16), st.integers(0, 12), st.integers(0, 2**53 - 1))
def test_padding_never_changes_or_truncates_the_number(prefix: str, pad: int, number: int) -> None:
    formatted = format_number(prefix, pad, number)
    digits = formatted.removeprefix(prefix)
    assert formatted.startswith(prefix)
    assert int(digits) == number
    assert len(digits) == max(pad, len(str(number)))
