from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from bus.rules.forecast import FARTHEST_DAYS, lasts_until

TODAY = date(2026, 11, 23)


def test_a_balance_lasts_as_many_days_as_the_pace_goes_into_it() -> None:
    assert lasts_until(700, 700, 7, TODAY) == TODAY + timedelta(days=7)
    assert lasts_until(50, 700, 7, TODAY) == TODAY
    assert lasts_until(1000, 1, 1, TODAY) == TODAY + timedelta(days=1000)


def test_what_does_not_fall_or_is_used_up_has_no_last_day() -> None:
    assert lasts_until(700, 0, 7, TODAY) is None
    assert lasts_until(0, 700, 7, TODAY) is None
    assert lasts_until(-3, 700, 7, TODAY) is None
    assert lasts_until(10**12, 1, 7, TODAY) is None


@given(st.integers(1, 10**12), st.integers(1, 10**12), st.integers(1, 7))
def test_on_the_day_before_something_is_left_and_a_day_later_nothing(balance: int, used: int, days: int) -> None:
    until = lasts_until(balance, used, days, TODAY)
    if until is None:
        assert balance * days >= (FARTHEST_DAYS + 1) * used
        return
    left = (until - TODAY).days
    # In whole numbers: used / days credits go each day.
    assert left * used <= balance * days < (left + 1) * used
