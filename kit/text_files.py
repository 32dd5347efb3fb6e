"""The text of other people's files: UTF-8 with or without a byte order mark, and the line ends of most lines."""

from __future__ import annotations


class UnreadableTextError(ValueError):
    """The content of a file is not text in UTF-8."""


def decode(content: bytes) -> str:
    r"""Decode the content of a file; a byte order mark stays as the first character, `\ufeff`.

    Raises:
        UnreadableTextError: the content is in another encoding.
    """
    _refuse_wide(content)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnreadableTextError(f"line {line} is not UTF-8; save the file as UTF-8") from None


def decode_any(content: bytes) -> str:
    """Decode the content of a file in any encoding that extends ASCII; `encode_any` restores its bytes.

    Raises:
        UnreadableTextError: the encoding does not extend ASCII.
    """
    _refuse_wide(content)
    return content.decode("utf-8", "surrogateescape")


def encode_any(text: str) -> bytes:
    """Return the bytes of a text of `decode_any`."""
    return text.encode("utf-8", "surrogateescape")


def _refuse_wide(content: bytes) -> None:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content:
        raise UnreadableTextError("this is not UTF-8 but UTF-16, UTF-32 or no text; save it as UTF-8")


def is_blank(text: str) -> bool:
    """Whether a text has only a byte order mark and whitespace."""
    return not text.strip("\ufeff \t\r\n")


def detect_newline(text: str) -> str:
    """Return the line end of most lines."""
    return "\r\n" if text.count("\r\n") * 2 > text.count("\n") else "\n"


def gap_before_block(text: str) -> str:
    """Return the line end to write between a text and a block behind it; removing it restores the text."""
    if not text.strip("\ufeff"):
        return ""
    # A line end of the other form would merge with this sign, and could not be removed again.
    return "\r\n" if text.endswith("\r") else detect_newline(text)
