"""Names and texts of others, made safe for a terminal and for the context of an agent."""

from __future__ import annotations

from typing import Any


def one_line(value: Any, max_length: int | None = None) -> str:
    """Return a value as one line of printable text.

    Line breaks, control characters, text direction marks and bytes that are no text are written as escapes, so that
    the name of a file never continues as a line of its own.

    Args:
        value: a name of a file, a participant or a surface, or another text.
        max_length: a longer text ends with an ellipsis; None for no limit.
    """
    text = "".join(char if char.isprintable() else _escape(char) for char in str(value))
    return text if max_length is None or len(text) <= max_length else text[: max_length - 1] + "…"


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        # A byte of a file name that is not UTF-8, as Python decodes it.
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")
