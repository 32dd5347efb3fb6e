"""Forecast of the day on which credits run out."""

from datetime import date, timedelta

MAX_FORECAST_DAYS = 3650


def forecast_exhaustion_date(balance: int, used: int, days: int, today: date) -> date | None:
    """Compute the day on which a balance reaches zero at the average daily use.

    Args:
        balance: credits left.
        used: credits used in the last `days` whole days.
        days: 1 or more.
        today: the day of `balance`.
    Returns:
        The day; None if the balance does not fall, is used up, or lasts longer than MAX_FORECAST_DAYS.
    """
    if balance <= 0 or used <= 0:
        return None
    days_left = balance * days // used
    return None if days_left > MAX_FORECAST_DAYS else today + timedelta(days=days_left)
