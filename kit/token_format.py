"""The form of a token: the kit sends no other value, so that a variable with another secret stays on this machine."""

from __future__ import annotations

import zlib

_PREFIX = "lbus_"
_LENGTH = 54
_CHECKSUM_LENGTH = 6
_BASE62_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def is_well_formed(token: str) -> bool:
    """Whether a text has the prefix, the length and the checksum of a token."""
    if len(token) != _LENGTH or not token.startswith(_PREFIX) or not token.isascii():
        return False
    if not token[len(_PREFIX) :].isalnum():
        return False
    number, digits = zlib.crc32(token[:-_CHECKSUM_LENGTH].encode("ascii")), ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, 62)
        digits = _BASE62_ALPHABET[digit] + digits
    return token[-_CHECKSUM_LENGTH:] == digits
