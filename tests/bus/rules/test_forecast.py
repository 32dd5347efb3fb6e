from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from bus.rules.forecast import MAX_FORECAST_DAYS, forecast_exhaustion_date

TODAY = date(2026, 11, 23)


def test_a_balance_lasts_for_its_quotient_by_the_daily_use() -> None:
    assert forecast_exhaustion_date(700, 700, 7, TODAY) == TODAY + timedelta(days=7)
    assert forecast_exhaustion_date(50, 700, 7, TODAY) == TODAY
    assert forecast_exhaustion_date(1000, 1, 1, TODAY) == TODAY + timedelta(days=1000)


def test_an_unused_exhausted_or_large_balance_has_no_last_day() -> None:
    assert forecast_exhaustion_date(700, 0, 7, TODAY) is None
    assert forecast_exhaustion_date(0, 700, 7, TODAY) is None
    assert forecast_exhaustion_date(-3, 700, 7, TODAY) is None
    assert forecast_exhaustion_date(10**12, 1, 7, TODAY) is None


@given(st.integers(1, 10**12), st.integers(1, 10**12), st.integers(1, 7))
def test_credits_remain_until_the_forecast_day_and_not_longer(balance: int, used: int, days: int) -> None:
    until = forecast_exhaustion_date(balance, used, days, TODAY)
    if until is None:
        assert balance * days >= (MAX_FORECAST_DAYS + 1) * used
        return
    days_left = (until - TODAY).days
    # In whole numbers: the daily use is used / days.
    assert days_left * used <= balance * days < (days_left + 1) * used
