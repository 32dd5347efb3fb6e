"""How long credits last at the pace at which they go."""

from datetime import date, timedelta

MAX_FORECAST_DAYS = 3650
"""Beyond it nothing is foretold."""


def forecast_exhaustion_date(balance: int, used: int, days: int, today: date) -> date | None:
    """The day on which a balance reaches zero, if as much is used each day as was on average.

    Args:
        balance: credits left; what is used up already has no such day.
        used: credits that went in the last `days` whole days.
        days: 1 or more.
        today: from when on the balance is counted.
    Returns:
        The day; None where the balance does not fall, is used up, or lasts for more than FARTHEST_DAYS.
    """
    if balance <= 0 or used <= 0:
        return None
    left = balance * days // used
    return None if left > MAX_FORECAST_DAYS else today + timedelta(days=left)
