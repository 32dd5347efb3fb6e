"""How a claimed number is shown."""


def format_number(prefix: str, pad: int, number: int) -> str:
    """Show a claimed number as people write it: `formatted("ADR-", 4, 7)` is `ADR-0007`.

    Args:
        prefix: what stands in front, possibly empty.
        pad: the least number of digits; a longer number keeps all of its digits.
        number: 0 or more.
    """
    return prefix + str(number).zfill(pad)
