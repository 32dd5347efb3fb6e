"""The format of claimed numbers."""


def format_number(prefix: str, pad: int, number: int) -> str:
    """Format a claimed number: `format_number("ADR-", 4, 7)` is `ADR-0007`.

    Args:
        prefix: may be empty.
        pad: the minimum number of digits; a longer number keeps all of its digits.
        number: 0 or more.
    """
    return prefix + str(number).zfill(pad)
